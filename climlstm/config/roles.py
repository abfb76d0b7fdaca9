"""Roles of channels in a run file: prescribed fields, boundaries, and settings of one channel."""

import re
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal, Protocol

from pydantic import (
    ConfigDict,
    Field,
    PositiveFloat,
    PositiveInt,
    model_validator,
)

from climlstm.config.choices import PluginChoice
from climlstm.config.values import Moment, Parameters, Section
from climlstm.errors import nearest

KNOWN_FROM = ("observed", "persisted", "climatology")
"""Origins of prescribed values besides forecasts of another source."""


class TransformChoice(PluginChoice):
    """A transform by name, its options beside it: `sqrt`, `{name: log1p, scale: 1 mm}`."""

    @model_validator(mode="before")
    @classmethod
    def _options_beside(cls, value: Any) -> Any:
        if isinstance(value, str):
            return {"name": value}
        if isinstance(value, dict) and "options" not in value:
            rest = {key: option for key, option in value.items() if key != "name"}
            return {"name": value.get("name"), "options": rest} if "name" in value else value
        return value


Amount = float | str
"""A number in the channel's units, or with a unit of its own: `0.25 mm`."""

AMOUNT = re.compile(r"\s*([-+]?(?:\d+\.?\d*|\.\d+)(?:e[-+]?\d+)?)\s*(\S.*)?")


def number_and_unit(amount: Any) -> tuple[float, str | None] | None:
    """Number and unit of a text such as '1 mm'; None for anything else."""
    match = AMOUNT.fullmatch(amount) if isinstance(amount, str) else None
    return None if match is None else (float(match[1]), match[2])


class ChannelConfig(Section):
    """Settings of one channel; what is left out comes from its variable."""

    transform: TransformChoice | None = None
    """A plugin of the group climlstm.transforms, applied before values are normalised; `none`: no
    transform, whatever the variable says."""
    minimum: Amount | None = None
    """Least value of a forecast, in the channel's units or with a unit: `0 mm`."""
    maximum: Amount | None = None
    """Greatest value of a forecast."""
    over_step: Literal["sum", "mean", "maximum", "minimum"] | None = None
    """How values of a source with a shorter step are put together over the step of the run, which
    ends at its time. None: as their file says; values of single moments are then taken as such."""
    weight: PositiveFloat = 1.0
    """Factor of the channel in the loss."""
    seen_at_start: bool = False
    """Whether an output's own values up to the start of a forecast are inputs, as the state's are.
    What is forecast of it is not fed back."""


class PrescribedConfig(Section):
    """A channel that is known from outside while forecasting, and not forecast."""

    model_config = ConfigDict(serialize_by_alias=True, validate_by_name=True)

    from_: str = Field(alias="from")
    """Origin of the values in forecasts. `observed`: the truth of the valid time, which makes the
    forecast a simulation. `persisted`: the anomaly of the start, kept. `climatology`. Or the name
    of an entry of the catalog with forecasts, of which the last start not after ours is taken."""
    training: Literal["observed", "persisted", "climatology"] | None = None
    """Origin of the values in training; by default as in forecasts, and `observed` for those that
    take forecasts of another source."""
    at: Literal["target", "input"] = "target"
    """Whether a step sees the value of the time that it leads to, or of the time it starts from."""
    mask: str | None = None
    """Where the channel is prescribed, if it is part of the state elsewhere: `land_mask < 0.5`, or
    a name of `data.regions`."""
    source: str | None = None
    """Entry of the catalog with the observed values, if not the run's own. Its step may be longer:
    the last known value is held, never a future one."""
    parameters: Parameters = Field(default_factory=dict)
    """Values for the parameters of that entry."""

    @property
    def in_training(self) -> str:
        """Origin of the values in training."""
        usual = self.from_ if self.from_ in KNOWN_FROM else "observed"
        return self.training or usual


class BoundaryConfig(Section):
    """A region driven at its rim by the state of a host model or analysis."""

    model_config = ConfigDict(serialize_by_alias=True, validate_by_name=True)

    from_: str = Field("observed", alias="from")
    """Origin of the host's state in forecasts: `observed`, which makes the forecast a simulation,
    or the name of an entry of the catalog with forecasts of the host model."""
    source: str | None = None
    """Entry of the catalog with the host's state in training, on the grid of the region; None: the
    run's own source."""
    parameters: Parameters = Field(default_factory=dict)
    """Values for the parameters of that entry."""
    width: PositiveInt = 8
    """Cells over which the forecast is blended towards the host; loss and scores leave them out."""


class AlsoConfig(Section):
    """A further source to train on: the same channels on the same grid, normalised by its own
    statistics; channels with bounds like the first source's, so that their bound is the same."""

    source: str
    """Name of the entry in the catalog."""
    parameters: Parameters = Field(default_factory=dict)
    """Values for the parameters of the entry."""
    train: tuple[Moment, Moment] | None = None
    """Its training period, if not that of the run. Unless the entry is declared `free_running`, it
    must not reach into `valid` or `test`."""


class LevelWeight(Section):
    """Weight of a pressure level in the loss, since high levels weigh little: `linear` is
    p / 1000 hPa (Lam et al. 2023, arXiv:2212.12794), `square` its square."""

    name: Literal["linear", "square"] = "linear"
    floor: Annotated[float, Field(ge=0, le=1)] = 0.2
    """Least weight of a level."""

    def at(self, level: float | None) -> float:
        """Weight at a pressure in hPa; 1 for a channel without a level."""
        if level is None:
            return 1.0
        return max(self.floor, (level / 1000) ** (2 if self.name == "square" else 1))


class Roles(Protocol):
    """The keys of the section `data` that give channels their roles."""

    @property
    def state(self) -> Sequence[str]: ...
    @property
    def output(self) -> Sequence[str]: ...
    @property
    def forcing(self) -> Sequence[str]: ...
    @property
    def static(self) -> Sequence[str]: ...
    @property
    def prescribed(self) -> Mapping[str, PrescribedConfig]: ...
    @property
    def boundary(self) -> BoundaryConfig | None: ...
    @property
    def channels(self) -> Mapping[str, ChannelConfig]: ...


def check_roles(data: Roles) -> None:
    """Raises ValueError for a channel in two roles, and for settings of channels that are not used.

    A channel may be state and prescribed, if a mask says where it is prescribed.
    """
    parted = {name for name, given in data.prescribed.items() if given.mask and name in data.state}
    names = [*data.state, *data.output, *data.forcing, *data.static]
    names += [name for name in data.prescribed if name not in parted]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        masked = [name for name in twice if name in data.prescribed and name in data.state]
        advice = (
            f". Say where it is prescribed: 'prescribed: {{{masked[0]}: {{mask: \"land_mask < "
            "0.5\"}}'"
            if masked
            else ""
        )
        raise ValueError(f"named more than once: {', '.join(twice)}{advice}")
    for name, given in data.prescribed.items():
        if given.mask and name not in data.state:
            raise ValueError(
                f"prescribed.{name}.mask says where '{name}' is no part of the state, but it is "
                f"nowhere part of it. Add '{name}' to 'state', or leave the mask out"
            )
        if given.mask and given.at == "input":
            raise ValueError(
                f"prescribed.{name} replaces the state after a step, so it is known at the step's "
                "target: leave 'at' out"
            )
        if name in parted and data.boundary is not None:
            raise ValueError(
                f"'{name}' is prescribed by a mask and by the boundary; choose one of them"
            )
    for name in data.channels:
        if name not in {*data.state, *data.output, *data.prescribed}:
            known = [*data.state, *data.output, *data.prescribed]
            raise ValueError(
                f"channels.{name}: no such channel is used.{nearest(name, known)} There are "
                f"{', '.join(known)}"
            )
        if data.channels[name].weight != 1 and name not in {*data.state, *data.output}:
            raise ValueError(
                f"channels.{name}.weight: '{name}' is not forecast, so not in the loss"
            )
        if data.channels[name].seen_at_start and name not in data.output:
            raise ValueError(
                f"channels.{name}.seen_at_start is for outputs; a state is always seen. Name "
                f"'{name}' in 'output', or leave it out"
            )
