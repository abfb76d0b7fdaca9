"""Channels that a source can give, and variables that may be ours under other names."""

import difflib
import re
from collections.abc import Hashable, Iterable, Iterator
from contextlib import suppress
from typing import Any

import xarray as xr

from climlstm import plugins
from climlstm.data.cube.chosen import channel_in
from climlstm.data.cube.matching import (
    SHARED_STANDARD_NAMES,
    NoChannelError,
    find_fields,
    may_hold,
    names_of,
)
from climlstm.data.cube.own import own_channel
from climlstm.data.sources.axes import Axes, find_levels
from climlstm.data.sources.units import conversion
from climlstm.errors import ClimLSTMError, DataError
from climlstm.plugins import Variable
from climlstm.plugins.channels import Channel, may_be_own

GUESS_CUTOFF = 0.6
"""Likeness of long names from which a variable is proposed for a channel of ours."""


def possible_channels(source: xr.Dataset, axes: Axes) -> tuple[dict[str, str], list[str]]:
    """Channels with the variables that hold them, and what keeps others from being made."""
    channels: dict[str, str] = {}
    problems: list[str] = []
    on_axes, in_names = _levels(source)
    names = {plugin.name for plugin in plugins.discover("variables")}
    for variable in _our_variables(problems):
        levels: Iterable[float | None] = [None]
        if variable.on_levels:
            anywhere = may_hold(source, Channel(variable.name, variable, min(on_axes, default=1.0)))
            levels = sorted(in_names | (on_axes if anywhere else set()), reverse=True)
        for level in levels:
            label = variable.name if level is None else f"{variable.name}{level:g}"
            if level is not None and label in names:  # u100 is the wind at 100 m
                label += "hPa"
            channel = Channel(label, variable, level)
            if level not in on_axes and not may_hold(source, channel):
                continue
            try:
                fields = find_fields(source, axes, channel)
            except NoChannelError:
                continue
            except ClimLSTMError as error:
                problems.append(str(error))
                continue
            channels[label] = ", ".join(dict.fromkeys(field.variable for field in fields))
    held, told = set(channels.values()), " ".join(problems)
    for name in (str(each) for each in source.data_vars):
        if name not in held and name not in names and f"'{name}'" not in told:
            channels |= _own(source, axes, name)
    return channels, problems


def _own(source: xr.Dataset, axes: Axes, name: str) -> dict[str, str]:
    """A variable that none of ours stands for, as channels under its own name, level by level."""
    if not set(axes.dims[1:]) <= set(source[name].dims):
        return {}
    levels = find_levels(source, name)
    labels = [name] if levels is None else [f"{name}{level:g}" for level in levels[1]]
    made = {}
    for label in labels:
        if may_be_own(label) and own_channel(source, label) is None:
            continue  # to say why takes longer than all else in an archive of hundreds
        with suppress(ClimLSTMError):
            find_fields(source, axes, channel_in(source, label))
            made[label] = name
    return made


def likely_variable(name: str, found: xr.Variable, time: Hashable, levels: Any) -> str | None:
    """The variable of ours with the same kind of unit that is most likely meant, by its names."""
    long_name = str(found.attrs.get("long_name", "")).lower()
    standard_name = str(found.attrs.get("standard_name", ""))
    likely: list[tuple[float, str]] = []
    for variable in _our_variables([]):
        if (variable.on_levels, variable.static) != (levels is not None, time not in found.dims):
            continue
        if variable.derive is not None:
            continue
        named = name.lower() in {alias.lower() for alias in names_of(variable)}
        same = standard_name in SHARED_STANDARD_NAMES and standard_name == variable.standard_name
        like = difflib.SequenceMatcher(None, long_name, variable.long_name.lower()).ratio()
        with suppress(DataError):
            if named or same or like >= GUESS_CUTOFF:
                conversion(str(found.attrs.get("units", variable.units)), variable.units)
                likely.append((named + like, variable.name))
    return max(likely)[1] if likely else None


def _our_variables(problems: list[str]) -> Iterator[Variable]:
    """Installed variables; why one cannot be loaded is added to the problems."""
    for plugin in plugins.discover("variables"):
        try:
            loaded: Variable = plugins.load_found(plugin)
        except ClimLSTMError as error:
            problems.append(str(error))
            continue
        yield loaded


def _levels(source: xr.Dataset) -> tuple[set[float], set[float]]:
    """Pressures in hPa on the axes of the source, and in names such as 'z500'."""
    numbers = (re.search(r"\D(\d{1,4})(?:hPa)?$", str(name)) for name in source.data_vars)
    in_names = {float(match[1]) for match in numbers if match}
    axes = (find_levels(source, str(name)) for name in source.data_vars)
    on_axes = {float(level) for found in axes if found is not None for level in found[1]}
    return on_axes, {level for level in in_names if 0 < level <= 1100}
