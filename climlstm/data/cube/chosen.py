"""Channels that a run names, as its source has them."""

from dataclasses import replace

import xarray as xr

from climlstm import plugins
from climlstm.data.cube.matching import (
    NoChannelError,
    flat_names,
    listed,
    names_of,
    position_of,
)
from climlstm.data.cube.own import own_channel
from climlstm.errors import nearest
from climlstm.plugins.channels import Channel, channel, may_be_own


def channel_in(source: xr.Dataset, name: str) -> Channel:
    """The channel that a name means in a source: a known variable, or one of the source's own.

    A derived variable that the source holds under one of its names is read, not derived.
    Raises NoChannelError where there is neither.
    """
    if may_be_own(name):
        own = own_channel(source, name)
        if own is not None:
            return own
        names = [str(each) for each in source.data_vars]
        known_names = [plugin.name for plugin in plugins.discover("variables")]
        raise NoChannelError(
            f"There is no channel '{name}'.{nearest(name, [*known_names, *names])} Variables of "
            f"the source: {listed(source, names)}. Known ones: {', '.join(known_names)}."
        )
    known = channel(name)
    variable = known.variable
    if variable.derive is not None and _holds(source, known):
        return replace(known, variable=replace(variable, derive=None, inputs=()))
    return known


def _holds(source: xr.Dataset, channel: Channel) -> bool:
    """Whether a variable of the source has one of the channel's names, and its level if any."""
    lower = {str(name).lower(): str(name) for name in source.data_vars}
    flat = flat_names(channel)
    for name in (*flat, *names_of(channel.variable)):
        held = lower.get(name.lower())
        if held is not None and position_of(source, held, channel, flat=name in flat) is not None:
            return True
    return False
