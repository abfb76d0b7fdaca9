"""Fill values: which stored numbers stand for missing ones."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import xarray as xr

FILL_ATTRIBUTES = (
    "_FillValue",
    "missing_value",
    "fill_value",
    "FillValue",
    "fillvalue",
    "_fill_value",
    "missingvalue",
    "missing",
    "undef",
)
"""Spellings under which files state the value that stands for a missing one."""


NETCDF_FILLS = {
    **{"i2": -32767, "u2": 65535, "i4": -2147483647, "u4": 4294967295},
    **{"i8": -9223372036854775806, "u8": 18446744073709551614},
    **{"f4": 9.969209968386869e36, "f8": 9.969209968386869e36},
}
"""Default fill values of the netCDF library (netcdf.h), by type."""


def numbers(attribute: Any) -> list[float]:
    """Finite numbers in an attribute, which may be one, several, text or NaN."""
    try:
        values = np.atleast_1d(np.asarray(attribute, dtype="float64"))
    except (TypeError, ValueError):
        return []
    return [float(value) for value in values if np.isfinite(value)]


def stated_fills(variable: xr.Variable) -> list[float]:
    """All values that a variable states as missing, decoded or not."""
    said = variable.encoding | variable.attrs
    return sorted({n for key in FILL_ATTRIBUTES if key in said for n in numbers(said[key])})


def default_fills(variable: xr.Variable) -> list[float]:
    """The value of netCDF for what was never written, as decoded, where a file states no other.

    Bytes have none. Only files of netCDF know their original shape.
    """
    if "original_shape" not in variable.encoding or stated_fills(variable):
        return []
    stored = np.dtype(variable.encoding.get("dtype", variable.dtype))
    fill = NETCDF_FILLS.get(stored.str[1:])
    if fill is None or variable.dtype.kind not in "iuf":
        return []
    packing = variable.encoding
    scale, offset = packing.get("scale_factor", 1), packing.get("add_offset", 0)
    return [float(np.asarray(fill, variable.dtype) * scale + offset)]


def not_missing(
    source: xr.Dataset, declared: Mapping[str, tuple[float, ...]]
) -> dict[str, tuple[float, ...]]:
    """Variables with fill values that are values after all, and those values.

    Zarr gives each array of format 2 the fill value 0 unless told otherwise, and xarray takes it
    for a missing one: zeros of rain, 0 °C, the equator, Greenwich would vanish. It counts as
    missing only where it was chosen: for packed values, and beside `missing_value: 0`.
    declared: by the catalog, by variable.
    """
    found = {name: values for name, values in declared.items() if values and name in source}
    for name, variable in source.variables.items():
        said = variable.encoding | variable.attrs
        stored = np.dtype(variable.encoding.get("dtype", variable.dtype))
        by_default = (
            "compressors" in variable.encoding
            and "serializer" not in variable.encoding  # which only format 3 has
            and stored.kind in "iufb"
            and numbers(said.get("_FillValue")) == [0.0]
            and 0.0 not in numbers(said.get("missing_value"))
            and not {"scale_factor", "add_offset"} & set(said)
        )
        if by_default:
            found.setdefault(str(name), (0.0,))
    return found


def without_fills(source: xr.Dataset, valid: Mapping[str, tuple[float, ...]]) -> xr.Dataset:
    """A source, opened without masks for some variables, without their valid values among fills."""
    for name, values in valid.items():
        variable = source.variables[name]
        for said in (variable.attrs, variable.encoding):
            for key in FILL_ATTRIBUTES:
                left = [n for n in numbers(said.get(key)) if n not in values]
                if key in said and left:
                    said[key] = left
                elif key in said:
                    del said[key]
    return source
