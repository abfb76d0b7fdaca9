"""Words and an attribute for the knowledge of the future that forecasts were given."""

import json

import xarray as xr

PRESCRIBED_FROM = "prescribed_from"
"""Attribute of forecasts: origin of each channel given from outside, as JSON."""


def knowledge_of(forecasts: xr.Dataset) -> dict[str, str]:
    """The attribute that says what forecasts knew of the future, for a channel taken from them."""
    return {key: forecasts.attrs[key] for key in [PRESCRIBED_FROM] if key in forecasts.attrs}


def label_of(forecasts: xr.Dataset | xr.DataArray) -> str:
    """Words for the knowledge of the future in forecasts: 'with observed sst', or nothing."""
    given = json.loads(forecasts.attrs.get(PRESCRIBED_FROM, "{}"))
    seen = [name for name, source in given.items() if source == "observed"]
    return f"with observed {' and '.join(seen)}" if seen else ""


def named(model: str | None, forecasts: xr.Dataset) -> str | None:
    """A model's name with the knowledge that its forecasts were given; None for None."""
    return None if model is None else f"{model} {label_of(forecasts)}".strip()
