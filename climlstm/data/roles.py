"""Channels of a run by their roles: predicted, given from outside, transformed, weighted."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from climlstm import plugins
from climlstm.config import ChannelConfig, Config, DataConfig
from climlstm.config.roles import number_and_unit
from climlstm.data.sources.units import conversion
from climlstm.data.statistics.statistics import Statistics
from climlstm.errors import ConfigError, DataError
from climlstm.grid import grid_of
from climlstm.grid.places import place_mask
from climlstm.model.spec import Given
from climlstm.plugins.channels import Channel, installed_channel
from climlstm.plugins.options import options_of

HOST = "@host"
"""Ending of the names of a host's channels in a cube, where it has a source of its own."""

RIM = "rim"
"""Name of the static field with the share of the host in each cell."""


def channel_of(name: str) -> Channel:
    """The variable and level behind a channel of a cube, a host's included."""
    return installed_channel(name.removesuffix(HOST))


def given_channels(data: DataConfig, *, training: bool = False) -> tuple[Given, ...]:
    """Channels that are known from outside while forecasting.

    training: with the origin that they have in training.
    """
    found = [
        Given(
            name,
            each.in_training if training else each.from_,
            (each.at,),
            replaces=name if each.mask else None,
        )
        for name, each in data.prescribed.items()
    ]
    if data.boundary is not None:
        ending = "" if data.boundary.source is None else HOST
        origin = "observed" if training else data.boundary.from_
        found += [
            Given(name + ending, origin, ("input", "target"), replaces=name) for name in data.state
        ]
    return tuple(found)


def streamed_channels(data: DataConfig) -> tuple[str, ...]:
    """Channels with time that a training reads, predicted ones first."""
    return tuple(dict.fromkeys([*data.predicted, *(g.name for g in given_channels(data))]))


def normalised_like_state(statistics: Statistics) -> Statistics:
    """The statistics with those of the state for a host's channels, which are blended into it."""
    at = [statistics.channels.index(name.removesuffix(HOST)) for name in statistics.channels]
    if at == list(range(len(at))):
        return statistics
    mean, std, change = statistics.mean, statistics.std, statistics.tendency_std
    return replace(statistics, mean=mean[at], std=std[at], tendency_std=change[at])


def settings_of(data: DataConfig) -> dict[str, dict[str, Any]]:
    """Transform and bounds of the channels that have any, in plain data; see `Spec.settings`.

    Raises ConfigError for a quantity that is not in the channel's units.
    """
    found = {}
    for name in streamed_channels(data):
        setting = _setting(name, data.channels.get(name.removesuffix(HOST), ChannelConfig()))
        if setting:
            found[name] = setting
    return found


def _setting(name: str, chosen: ChannelConfig) -> dict[str, Any]:
    variable = channel_of(name).variable
    setting: dict[str, Any] = {"seen_at_start": True} if chosen.seen_at_start else {}
    if chosen.transform is not None:
        options = {
            key: quantity(value, variable.units, f"data.channels.{name}.transform.{key}")
            for key, value in chosen.transform.options.items()
        }
        complete = plugins.complete_options("transforms", chosen.transform.name, options)
        setting["transform"] = {"name": chosen.transform.name, "options": complete}
    elif variable.transform is not None:
        own = variable.transform
        setting["transform"] = {"name": plugins.name_of(own), "options": options_of(own)}
    for key in ("minimum", "maximum"):
        bound = getattr(chosen, key)
        bound = getattr(variable, key) if bound is None else bound
        if bound is not None:
            setting[key] = float(quantity(bound, variable.units, f"data.channels.{name}.{key}"))
    return setting


def quantity(value: Any, units: str, place: str) -> Any:
    """A number in `units`, from one with a unit of its own ('1 mm'); anything else as it is.

    Raises ConfigError where the unit cannot be converted.
    """
    amount = number_and_unit(value)
    if amount is None:
        return value
    if amount[1] is None:
        return amount[0]
    try:
        convert = conversion(amount[1], units)
    except DataError as error:
        raise ConfigError(f"{place}: '{value}' cannot be brought to '{units}': {error}.") from error
    return convert.scale * amount[0] + convert.offset


def imposed_shares(data: DataConfig, cube: xr.Dataset) -> NDArray[np.float32] | None:
    """Share by which the state is replaced from outside, (C, H, W) from 0 to 1; None: nowhere.

    1 where a mask prescribes a channel; in the rim of a region falling from 1 to 0 over its width,
    as the square of a cosine, so that forecast and host pass smoothly into each other.
    Raises DataError for a mask that cannot be understood, or a rim as wide as the region.
    """
    rows, columns = grid_of(cube).shape
    shares = np.zeros((len(data.predicted), rows, columns), dtype="float32")
    for name, each in data.prescribed.items():
        if each.mask is not None:
            shares[data.predicted.index(name)] = mask_of(each.mask, data, cube)
    if data.boundary is not None:
        shares[: len(data.state)] = rim_share(data.boundary.width, rows, columns)
    return shares if shares.any() else None


def rim_share(width: int, rows: int, columns: int) -> NDArray[np.float32]:
    """Share of the host (H, W): 1 in the outermost cells, falling to 0 over `width` cells.

    Raises DataError where no cell would be left inside.
    """
    if 2 * width >= min(rows, columns):
        raise DataError(
            f"A rim of {width} cells leaves nothing of a region of {rows} × {columns} cells. Set "
            f"data.boundary.width below {(min(rows, columns) + 1) // 2}, or enlarge the region."
        )
    row, column = (np.minimum(np.arange(n), np.arange(n)[::-1]) for n in (rows, columns))
    depth = np.minimum(row[:, None], column[None, :])  # cells to the edge
    share = np.cos(np.pi / 2 * np.minimum(depth / width, 1)) ** 2
    return np.where(depth < width, share, 0).astype("float32")


def mask_of(text: str, data: DataConfig, cube: xr.Dataset) -> NDArray[np.bool_]:
    """Cells (H, W) of a cube in a place, by words, a name of `data.regions`, or a static field."""

    def field(name: str) -> NDArray:
        if name not in data.static:
            raise DataError(
                f"The place '{text}' compares '{name}', which is no static field of the run. Add "
                f"it to data.static, which has {', '.join(data.static) or 'none'}."
            )
        return np.asarray(cube[name].values)

    return place_mask(text, grid_of(cube), named=data.regions, field=field)


def origins_of(given: Sequence[Given]) -> dict[str, str]:
    """Origin of each prescribed channel, and of the boundary, in forecasts."""
    return {
        "boundary" if each.replaces and "input" in each.at else each.name: each.source
        for each in given
    }


@dataclass(frozen=True)
class ChannelWeight:
    """Factors of a predicted channel in the loss, and the whole as its share of the sum."""

    name: str
    variable: float
    level: float
    balance: float
    """1 / std² is in the normalised error; this times that is what an error costs."""

    @property
    def product(self) -> float:
        """Factor of the channel, besides the area of cells."""
        return self.variable * self.level * self.balance


def channel_weights(config: Config, statistics: Statistics) -> list[ChannelWeight]:
    """Weights in the loss, channel by channel.

    With the balance 'tendency' the squared error of a state is divided by its standard deviation
    and by that of its tendency, instead of by the former squared; an output has no tendency.
    """
    data, training = config.data, config.training
    found = []
    for name in data.predicted:
        at = statistics.channels.index(name)
        slow = training.balance == "tendency" and name not in data.output
        balance = statistics.std[at] / statistics.tendency_std[at] if slow else 1.0
        level = training.level_weight
        found.append(
            ChannelWeight(
                name,
                data.channels[name].weight if name in data.channels else 1.0,
                1.0 if level is None else level.at(installed_channel(name).level),
                float(balance),
            )
        )
    return found
