"""What forecasts were allowed to know of the future, in an attribute and in words."""

import json

import xarray as xr

PRESCRIBED_FROM = "prescribed_from"
"""Attribute of forecasts: origin of each channel given from outside, as JSON."""


def knowledge_of(forecasts: xr.Dataset) -> dict[str, str]:
    """The attribute that says what forecasts knew of the future, for a channel taken from them."""
    return {key: forecasts.attrs[key] for key in [PRESCRIBED_FROM] if key in forecasts.attrs}


def label_of(forecasts: xr.Dataset | xr.DataArray) -> str:
    """What forecasts, or a channel of them, knew of the future: 'with observed sst', or nothing."""
    given = json.loads(forecasts.attrs.get(PRESCRIBED_FROM, "{}"))
    seen = [name for name, source in given.items() if source == "observed"]
    return f"with observed {' and '.join(seen)}" if seen else ""
