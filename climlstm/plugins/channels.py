"""Channels: the names by which run files, stores and the network know a variable at a level."""

import re
from contextlib import suppress
from dataclasses import dataclass

from climlstm import plugins
from climlstm.errors import PluginError, nearest
from climlstm.plugins import Plugin, Variable


@dataclass(frozen=True)
class Channel:
    """One variable at one level, by its short name: `t2m`, `z500`."""

    name: str
    variable: Variable
    level: float | None = None
    """Pressure in hPa; None for a variable without levels."""


def channel(name: str) -> Channel:
    """The variable and level that a channel's name means.

    `t2m` is a variable of that name, `z500` the variable `z` at 500 hPa. Names of variables come
    first, so `u10` and `u100` are winds at 10 and 100 m; the wind at 100 hPa is `u100hPa`. Before
    a colon stands the distribution, or the module, that has the variable (see `plugins.load`).
    Raises PluginError for an unknown name, with the nearest known one.
    """
    variable, level = _variable_and_level(name)
    loaded: Variable = plugins.load("variables", variable)
    if level is None and loaded.on_levels:
        raise PluginError(
            f"The variable '{name}' is kept on pressure levels; name one of them in hPa, "
            f"such as '{name}500'."
        )
    if level is not None and not loaded.on_levels:
        raise _unknown(name)
    return Channel(name, loaded, level)


def installed_channel(name: str) -> Channel:
    """The channel of a name; where its variable is not installed here, one that keeps the name."""
    try:
        return channel(name)
    except PluginError:
        return Channel(name, Variable(name=name, long_name=name, units=""))


def may_be_own(name: str) -> bool:
    """Whether a name is none of an installed variable, so that a source may have it for its own."""
    if ":" in name:
        return False
    try:
        _variable_and_level(name)
        return False
    except PluginError:
        return True


def plugins_of(name: str) -> list[Plugin]:
    """The variables that a channel needs: its own, and those that it is derived from, to the last.

    A variable of a source's own needs none. Raises PluginError as `channel` does.
    """
    if may_be_own(name):
        return []
    channel(name)
    asked, found = [_variable_and_level(name)[0]], []
    while asked:
        variable = asked.pop(0)
        found.append(plugins.identify("variables", variable))
        loaded: Variable = plugins.load("variables", variable)
        inputs = loaded.inputs if loaded.derive is not None else ()
        asked += [each for each in inputs if not may_be_own(each)]
    return found


def _variable_and_level(name: str) -> tuple[str, float | None]:
    """Name of the variable, as `plugins.load` takes it, and the level that the channel names."""
    owner, colon, short = name.rpartition(":")
    known = _known(owner)
    if short in known:
        return name, None
    parts = re.fullmatch(r"(\D\w*?)(\d+(?:\.\d+)?)(?:hPa)?", short)
    if parts and parts[1] in known:
        return owner + colon + parts[1], float(parts[2])
    if colon and not known:  # the owner is a module, then
        return _of_module(name, parts and owner + colon + parts[1], parts and float(parts[2]))
    raise _unknown(name)


def _of_module(name: str, stem: str | None, level: float | None) -> tuple[str, float | None]:
    """The variable of that name, or the one of its stem at a level; errors speak of the former."""
    try:
        plugins.load("variables", name)
        return name, None
    except PluginError as error:
        if stem is not None:
            with suppress(PluginError):
                plugins.load("variables", stem)
                return stem, level
        raise error


def _known(distribution: str) -> set[str]:
    """Names of the variables of a distribution, or of all."""
    found = plugins.discover("variables")
    return {p.name for p in found if distribution in ("", p.distribution)}


def _unknown(name: str) -> PluginError:
    owner, _, short = name.rpartition(":")
    known = sorted(_known(owner))
    stem = re.match(r"\D\w*?(?=\d)", short)
    hint = nearest(short, known) or (nearest(stem[0], known) if stem else "")
    return PluginError(
        f"There is no channel '{name}'.{hint} Known variables: {', '.join(known) or 'none'}; one "
        "on levels takes its pressure in hPa, as in 'z500'. Others come from plugins."
    )
