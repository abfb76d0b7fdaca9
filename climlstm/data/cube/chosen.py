"""Channels that a run names, as its source has them."""

import xarray as xr

from climlstm import plugins
from climlstm.data.cube.conversions import converted
from climlstm.data.cube.matching import NoChannelError, as_held, listed
from climlstm.data.cube.own import own_channel
from climlstm.errors import nearest
from climlstm.plugins.channels import Channel, channel, may_be_own
from climlstm.steps import Step


def channel_in(source: xr.Dataset, name: str, step: Step | None = None) -> Channel:
    """The channel that a name means in a source: a known variable, or one of the source's own.

    A derived variable that the source holds under one of its names is read, not derived; a wind,
    humidity or rain that it lacks is made of others, see `conversions`.
    step: of the run. Raises NoChannelError where there is neither.
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
    return converted(source, as_held(source, channel(name)), step)
