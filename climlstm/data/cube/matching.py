"""Search for the variable and level of a source that hold a channel, and for their encoding."""

import re
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import replace

import numpy as np
import xarray as xr

from climlstm import plugins
from climlstm.advice import catalog_line, variable_line
from climlstm.data.cube.own import input_variable
from climlstm.data.cube.recipes import ChannelRecipe, CubeCells, Field
from climlstm.data.sources.axes import Axes, find_levels
from climlstm.data.sources.fills import FILL_ATTRIBUTES, default_fills, numbers
from climlstm.data.sources.joining import left_out_of
from climlstm.data.sources.units import conversion
from climlstm.errors import DataError, nearest
from climlstm.grid.winds import ALONG_GRID, frame_of, is_turned, partner
from climlstm.plugins import Variable
from climlstm.plugins.channels import Channel

SHARED_STANDARD_NAMES = {
    "air_temperature",
    "eastward_wind",
    "northward_wind",
    "wind_speed",
    "wind_from_direction",
    "specific_humidity",
    "relative_humidity",
}
"""Standard names that say nothing of the height (2 m, 10 m), so they identify no variable."""

NCL_NAME = re.compile(r"(?P<name>[A-Z_]+)_(?:\d+_ISBL|P\d+_L100_\w+)")
"""Variables on pressure levels as NCL names those of GRIB files: HGT_2_ISBL, TMP_P0_L100_GLL0."""

NCL_VARIABLES = {
    "HGT": "z",
    "GP": "z",
    "Z": "z",
    "TMP": "t",
    "T": "t",
    "U_GRD": "u",
    "UGRD": "u",
    "U": "u",
    "V_GRD": "v",
    "VGRD": "v",
    "V": "v",
    "V_VEL": "w",
    "VVEL": "w",
    "W": "w",
    "SPF_H": "q",
    "SPFH": "q",
    "Q": "q",
    "R_H": "r",
    "RH": "r",
    "R": "r",
}
"""Our names for the parameters of NCEP and ECMWF in such names."""

LISTED = 40
"""Variables of a source that an error names."""

MEMBERS = {"number", "realization", "ensemble", "member", "ens"}


class NoChannelError(DataError):
    """No variable of the source holds the channel."""


def may_hold(source: xr.Dataset, channel: Channel) -> bool:
    """Whether the source has variables by whose names or meaning it may hold the channel.

    Much faster than to ask `find_fields` for each of many channels, whose errors list them all.
    """
    variable = as_held(source, channel).variable
    if variable.derive is None:
        return next(_candidates(source, channel), None) is not None
    inputs = [plugins.load("variables", name) for name in variable.inputs]
    return all(may_hold(source, replace(channel, name=each.name, variable=each)) for each in inputs)


def as_held(source: xr.Dataset, channel: Channel) -> Channel:
    """The channel, one to be read where the source holds a derived variable under its own name."""
    variable, flat = channel.variable, flat_names(channel)
    lower = {str(name).lower(): str(name) for name in source.data_vars}
    for name in (*flat, *names_of(variable)) if variable.derive is not None else ():
        held = lower.get(name.lower())
        if held is not None and position_of(source, held, channel, flat=name in flat) is not None:
            return replace(channel, variable=replace(variable, derive=None, inputs=()))
    return channel


def make_recipe(
    source: xr.Dataset, axes: Axes, cells: CubeCells, channel: Channel
) -> ChannelRecipe:
    """The recipe of a channel; one that is derived takes its inputs at the same level.

    Raises DataError where the source lacks it, or has it in units that cannot be converted.
    """
    return ChannelRecipe(channel, find_fields(source, axes, channel), cells)


def find_fields(source: xr.Dataset, axes: Axes, channel: Channel) -> tuple[Field, ...]:
    """The stored fields that a channel is made of; errors as from `make_recipe`."""
    return tuple(_fields(source, axes, channel, channel.name))


def _fields(source: xr.Dataset, axes: Axes, channel: Channel, asked: str) -> Iterator[Field]:
    channel = as_held(source, channel)
    variable = channel.variable
    if variable.derive is None:
        field = _find_field(source, axes, channel, asked)
        yield field
        if variable.component is not None and needs_turning(source[field.variable], axes):
            yield _find_partner(source, axes, channel, asked)
    for name in variable.inputs if variable.derive is not None else ():
        needed = input_variable(source, name)
        level = channel.level if needed.on_levels else None
        label = name if level is None else f"{name}{level:g}"
        yield from _fields(source, axes, Channel(label, needed, level), asked)


def needs_turning(variable: xr.DataArray, axes: Axes) -> bool:
    """Whether a stored wind points east or north, while the rows of the grid do not.

    Raises DataError where its file does not say where it points.
    """
    if axes.placed is None or not is_turned(axes.placed.grid):
        return False
    frame = frame_of(variable)
    if frame is None:
        raise DataError(
            "The rows of the grid do not run eastward, and the file does not say whether the wind "
            f"'{variable.name}' follows them or points east and north. Say so "
            f"{catalog_line(winds='grid')}, or {catalog_line(winds='earth')}."
        )
    return frame == "earth"


def _find_partner(source: xr.Dataset, axes: Axes, channel: Channel, asked: str) -> Field:
    """The other component of a wind, which is needed to turn it into the grid."""
    name = partner(channel.variable.name)
    other: Variable = plugins.load("variables", name)
    label = name if channel.level is None else f"{name}{channel.level:g}"
    return _find_field(source, axes, Channel(label, other, channel.level), asked)


def _find_field(source: xr.Dataset, axes: Axes, channel: Channel, asked: str) -> Field:
    variable = channel.variable
    name, position = _find_variable(source, channel, asked)
    found = source[name]
    positions = dict(_other_positions(source, axes, name))
    positions.update(position)
    if found.dtype.kind not in "iufb":
        raise DataError(
            f"Channel '{asked}': the variable '{name}' is of type {found.dtype}, not real numbers. "
            "Choose another variable of the source, in the catalog."
        )
    time, latitude, longitude = axes.dims
    lacking = [dim for dim in (latitude, longitude) if dim not in found.dims]
    if time not in found.dims and not variable.static:
        lacking.append(time)
    if lacking:
        raise DataError(
            f"Channel '{asked}': the variable '{name}' has dimensions {found.dims}, without "
            f"{', '.join(map(str, lacking))}. A state needs time, latitude and longitude"
            + ("; ask for what never changes under 'static'." if time in lacking else ".")
        )
    if variable.static and time in found.dims:
        positions[time] = 0
    scale, offset = _meaning(found, channel, asked)
    fills = [numbers(found.attrs[key]) for key in FILL_ATTRIBUTES if key in found.attrs]
    fills.append(default_fills(found.variable))
    return Field(
        name=variable.name,
        variable=name,
        positions=tuple(positions.items()),
        scale=scale,
        offset=offset,
        missing=tuple(sorted({n for fill in fills for n in fill})),
    )


def _meaning(found: xr.DataArray, channel: Channel, asked: str) -> tuple[float, float]:
    """Scale and offset from stored values to our units: packing and conversion in one."""
    variable, units = channel.variable, found.attrs.get("units")
    if units is None and variable.units == "1":  # of the source's own, without a unit
        units = "1"
    if units is None:
        raise DataError(
            f"Channel '{asked}': the variable '{found.name}' has no units, so it cannot be brought "
            f"to '{variable.units}'. Declare them {variable_line(found.name, units='UNIT')}."
        )
    try:
        convert = conversion(str(units), variable.units, standard_name=variable.standard_name)
    except DataError as error:
        raise DataError(
            f"Channel '{asked}': the variable '{found.name}' is in '{units}', but climlstm keeps "
            f"'{variable.name}' in '{variable.units}', and {error}. Say which unit it is, for "
            f"example {variable_line(found.name, units=variable.units)}; or choose another one."
        ) from error
    scale = float(found.attrs.get("scale_factor", 1.0))
    offset = float(found.attrs.get("add_offset", 0.0))
    return convert.scale * scale, convert.scale * offset + convert.offset


def _find_variable(
    source: xr.Dataset, channel: Channel, asked: str
) -> tuple[str, dict[Hashable, int]]:
    """Name of the variable in the source that holds a channel, and its position on levels."""
    levels_elsewhere = []
    for name, flat in _candidates(source, channel):
        position = position_of(source, name, channel, flat=flat)
        if position is not None:
            return name, position
        levels = find_levels(source, name)
        if levels is not None and channel.level is not None:
            values = ", ".join(f"{value:g}" for value in levels[1])
            levels_elsewhere.append(f"'{name}' at {values} hPa")
    if levels_elsewhere:
        found = "; ".join(dict.fromkeys(levels_elsewhere))
        raise NoChannelError(f"The source has no channel '{asked}': it has {found}.")
    left_out = {name.lower(): (name, why) for name, why in left_out_of(source).items()}
    for name in (*flat_names(channel), *names_of(channel.variable)):
        if name.lower() in left_out:
            held, reason = left_out[name.lower()]
            raise NoChannelError(
                f"The source has no channel '{asked}': '{held}' is in its files, but {reason}."
            )
    names = [str(name) for name in source.data_vars]
    needs = "" if asked == channel.name else f", which is derived from '{channel.name}'"
    raise NoChannelError(
        f"The source has no channel '{asked}'{needs}.{nearest(channel.variable.name, names)} "
        f"It has: {listed(source, names)}. If one of them is it, say so "
        f"{variable_line('NAME', name=channel.name)}, with its 'units' if its file lacks them."
    )


def position_of(
    source: xr.Dataset, name: str, channel: Channel, *, flat: bool
) -> dict[Hashable, int] | None:
    """Position on levels at which a variable holds the channel; None if it does not.

    flat: the level is in the variable's name already.
    """
    levels = find_levels(source, name)
    if levels is None:
        return {} if flat or channel.level is None else None
    dimension, values = levels
    along = dimension in source[name].dims
    if channel.level is None:
        # a scalar level is shared by all variables of a file; but z at 500 hPa is no orography
        fits = values.size == 1 and not channel.variable.static
        return None if not fits else {dimension: 0} if along else {}
    at = np.flatnonzero(np.abs(values - channel.level) < 1e-3 * channel.level)
    if not at.size:
        return None
    return {dimension: int(at[0])} if along else {}


def _candidates(source: xr.Dataset, channel: Channel) -> Iterator[tuple[str, bool]]:
    """Variables that may hold a channel, the likeliest first: by its names, then by meaning.

    With each, whether its name says the level.
    """
    variable = channel.variable
    lower = {str(name).lower(): str(name) for name in source.data_vars}
    flat = flat_names(channel)
    for name in (*flat, *names_of(variable)):
        found = name if name in source.data_vars else lower.get(name.lower())
        if found is not None:
            yield found, name in flat
    for held in map(str, source.data_vars):
        match = NCL_NAME.fullmatch(held)
        if match and NCL_VARIABLES.get(match["name"]) == variable.name:
            yield held, False
    if variable.standard_name is None:
        return
    if channel.level is None and variable.standard_name in SHARED_STANDARD_NAMES:
        return
    meanings = {variable.standard_name, ALONG_GRID.get(variable.standard_name)} - {None}
    meant = [
        str(name)
        for name in source.data_vars  # their DataArrays would each search all the others
        if source.variables[name].attrs.get("standard_name") in meanings
    ]
    if len(meant) == 1 or channel.level is not None:
        yield from ((name, False) for name in meant)


def names_of(variable: Variable) -> tuple[str, ...]:
    """Names under which files may have a variable, without its level."""
    era5_name = (variable.era5_name,) if variable.era5_name else ()
    return (variable.name, *era5_name, *variable.aliases)


def flat_names(channel: Channel) -> tuple[str, ...]:
    """Names of a variable that is a level by itself: z500, z_500, geopotential_500hPa.

    Those of other variables are left out: u10 is the wind at 10 m.
    """
    if channel.level is None:
        return ()
    taken = {plugin.name for plugin in plugins.discover("variables")}
    level = f"{channel.level:g}"
    spellings = [
        f"{name}{joint}{level}{unit}"
        for name in names_of(channel.variable)
        for joint in ("", "_", "-")
        for unit in ("", "hPa")
    ]
    return (channel.name, *(name for name in spellings if name not in taken))


def _other_positions(source: xr.Dataset, axes: Axes, name: str) -> Iterator[tuple[Hashable, int]]:
    """Dimensions of length one are passed over; any other, but levels, needs a choice."""
    levels = find_levels(source, name)
    for dim in source[name].dims:
        if dim in axes.dims or (levels is not None and dim == levels[0]):
            continue
        size = source.sizes[dim]
        if size > 1:
            what = "ensemble members" if str(dim).lower() in MEMBERS else "entries"
            labels = source[dim].values if dim in source.coords else np.arange(size)
            first = labels[0].item() if labels.dtype.kind in "iufU" else str(labels[0])
            raise DataError(
                f"The variable '{name}' has a dimension '{dim}' with {size} {what}, and a cube has "
                "one value for each time and place. Choose one "
                f"{catalog_line(select={str(dim): first})}; or, if each has only a part of the "
                f"times, let them complete each other {catalog_line(combine=[str(dim)])}."
            )
        yield dim, 0


def listed(source: xr.Dataset, names: Sequence[str]) -> str:
    """The first variables with their levels, and how many more there are."""
    if not names:
        return "no variables"
    more = f" and {len(names) - LISTED} more" if len(names) > LISTED else ""
    return ", ".join(_described(source, name) for name in names[:LISTED]) + more


def _described(source: xr.Dataset, name: str) -> str:
    levels = find_levels(source, name)
    if levels is None:
        return f"'{name}'"
    return f"'{name}' ({', '.join(f'{value:g}' for value in levels[1])} hPa)"
