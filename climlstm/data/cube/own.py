"""Variables that a source has and climlstm does not know: channels under their own names."""

import re
from dataclasses import replace

import xarray as xr

from climlstm import plugins
from climlstm.data.sources.axes import find_levels
from climlstm.plugins import Variable
from climlstm.plugins.channels import Channel, may_be_own


def own_channel(source: xr.Dataset, name: str) -> Channel | None:
    """The variable of a source with exactly this name, with its units and long name; or one on
    levels, whose name the level follows: `vo500`."""
    stem = re.fullmatch(r"(\D\w*?)(\d+(?:\.\d+)?)(?:hPa)?", name)
    if name in source.data_vars:
        held, level = name, None
    elif stem and stem[1] in source.data_vars and find_levels(source, stem[1]) is not None:
        held, level = stem[1], float(stem[2])
    else:
        return None
    attrs = source[held].attrs
    has_time = any(source[dim].dtype.kind in "MO" for dim in source[held].dims if dim in source)
    variable = Variable(
        name=held,
        long_name=str(attrs.get("long_name", held)),
        units=str(attrs.get("units", "1")),
        standard_name=attrs.get("standard_name"),
        on_levels=level is not None,
        static=not has_time,
    )
    return Channel(name, variable, level)


def input_variable(source: xr.Dataset, name: str) -> Variable:
    """A variable that another is derived from: a known one, or one of the source's own."""
    own = own_channel(source, name) if may_be_own(name) else None
    if own is None:
        known: Variable = plugins.load("variables", name)
        return known
    return replace(own.variable, on_levels=find_levels(source, name) is not None)
