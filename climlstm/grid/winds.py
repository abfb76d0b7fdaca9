"""Components of winds: along the rows and columns of a grid, or towards east and north.

With a the angle of the rows against east (`Grid.angle`): east = u cos a - v sin a and
north = u sin a + v cos a.
"""

from typing import Literal, TypeVar

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from climlstm.grid.grid import grid_of
from climlstm.grid.kind import Grid

Frame = Literal["grid", "earth"]
Array = TypeVar("Array", NDArray[np.float32], NDArray[np.float64], xr.DataArray)

ALONG_GRID = {"eastward_wind": "x_wind", "northward_wind": "y_wind"}
"""CF's standard names of winds along rows and columns, by those towards east and north."""

NAMES = {
    "x_wind": "grid", "y_wind": "grid", "grid_eastward_wind": "grid",
    "grid_northward_wind": "grid", "eastward_wind": "earth", "northward_wind": "earth",
}  # fmt: skip

TURNED = 1e-6
"""Angle in radians below which rows follow the latitudes."""


def frame_of(variable: xr.DataArray) -> Frame | None:
    """Directions that a stored wind follows; None where its file does not say.

    What a catalog declares (the attribute `winds`) goes before GRIB's flag uvRelativeToGrid, and
    that before CF's standard name, which cfgrib gives by the parameter alone.
    """
    declared = variable.attrs.get("winds")
    if declared in ("grid", "earth"):
        return declared
    flag = variable.attrs.get("GRIB_uvRelativeToGrid")
    if flag is not None:
        return "grid" if int(flag) else "earth"
    return NAMES.get(str(variable.attrs.get("standard_name")))  # type: ignore[return-value]


def is_turned(grid: Grid) -> bool:
    """Whether rows do not follow the latitudes everywhere, so that the frames differ."""
    return bool(np.abs(grid.angle).max() > TURNED)


def partner(channel: str) -> str:
    """Name of the other component: v10 for u10, u500 for v500."""
    return ("v" if channel[0] == "u" else "u") + channel[1:]


def turned(u: Array, v: Array, angle: Array) -> tuple[Array, Array]:
    """Components in axes that are turned by an angle (radians, anticlockwise) against theirs."""
    sine, cosine = np.sin(angle), np.cos(angle)
    return u * cosine + v * sine, v * cosine - u * sine


def to_earth(data: xr.Dataset) -> xr.Dataset:
    """Data in our order with winds towards east and north instead of along rows and columns.

    Pairs of channels are found by CF's standard names; without such a pair the data are returned
    as they are.
    """
    pairs = [
        (str(name), partner(str(name)))
        for name, variable in data.data_vars.items()
        if variable.attrs.get("standard_name") == "x_wind"
    ]
    pairs = [(u, v) for u, v in pairs if v in data]
    if not pairs:
        return data
    grid = grid_of(data)
    against = xr.DataArray(-grid.angle.astype("float32"), dims=grid.dims)
    changed = {}
    for u, v in pairs:
        for name, values, standard, text in zip(
            (u, v), turned(data[u], data[v], against), ALONG_GRID, ("eastward", "northward"),
            strict=True,
        ):  # fmt: skip
            attributes = data[name].attrs | {"standard_name": standard}
            said = str(attributes.get("long_name", ""))
            attributes["long_name"] = said.replace("along x", text).replace("along y", text)
            changed[name] = values.transpose(*data[name].dims).assign_attrs(attributes)
    return data.assign(changed)
