"""The grid of a dataset in our order, and grids as plain JSON."""

import base64
import zlib
from collections.abc import Mapping
from dataclasses import fields
from typing import Any

import numpy as np
import xarray as xr

from climlstm.errors import DataError
from climlstm.grid.curvilinear import Curvilinear
from climlstm.grid.kind import Grid
from climlstm.grid.latlon import LatLon
from climlstm.grid.plane import Plane
from climlstm.grid.projected import Projected

KINDS: dict[str, type[Grid]] = {each.kind: each for each in (LatLon, Plane, Projected, Curvilinear)}


def grid_of(data: xr.Dataset | xr.DataArray) -> Grid:
    """The grid of data in our order: what cubes, climatologies and forecasts have.

    Data with 1-D coordinates `latitude` and `longitude` need not be ours (see `axes`).
    Raises DataError for a kind that this version does not know.
    """
    latitude, longitude = data["latitude"], data["longitude"]
    if latitude.ndim == 2:
        if "crs" in data.coords:
            return Projected(
                data["y"].values.astype("float64"),
                data["x"].values.astype("float64"),
                str(data["crs"].attrs["crs_wkt"]),
            )
        parts = [each.values for each in (latitude, longitude, data["cell_area"])]
        return Curvilinear(*parts)
    rows, columns = (np.asarray(each.values, dtype="float64") for each in (latitude, longitude))
    return kind_of(latitude)(rows, columns)


def field_dims(data: xr.Dataset | xr.DataArray) -> tuple[str, str]:
    """The dimensions of rows and columns: `latitude` and `longitude`, or `y` and `x`."""
    return Projected.dims if set(Projected.dims) <= set(data.dims) else LatLon.dims


def kind_of(latitude: xr.DataArray) -> type[LatLon]:
    """The class of grid that 1-D latitudes say they belong to; LatLon unless they say otherwise.

    Raises DataError for a kind that this version does not know.
    """
    kind = latitude.attrs.get("grid", LatLon.kind)
    if kind not in (LatLon.kind, Plane.kind):
        raise DataError(
            f"The coordinate '{latitude.name}' says that its grid is '{kind}', but climlstm knows "
            f"only {', '.join(KINDS)}. Open the data with the version that wrote them."
        )
    return Plane if kind == Plane.kind else LatLon


def to_dict(grid: Grid) -> dict[str, Any]:
    """A grid as plain JSON, which `from_dict` reads."""
    parts = {each.name: getattr(grid, each.name) for each in fields(grid)}  # type: ignore[arg-type]
    return {"kind": grid.kind} | {name: _packed(part) for name, part in parts.items()}


def from_dict(content: Mapping[str, Any]) -> Grid:
    """Raises DataError for a kind that this version does not know."""
    if content.get("kind") not in KINDS:
        raise DataError(
            f"The grid is of the kind {content.get('kind')!r}, but climlstm knows only "
            f"{', '.join(KINDS)}. Open it with the version that wrote it."
        )
    parts = {name: _unpacked(part) for name, part in content.items() if name != "kind"}
    return KINDS[content["kind"]](**parts)


def _packed(part: Any) -> Any:
    """Numbers along an axis as a list; fields of cells compressed, since there are many."""
    if not isinstance(part, np.ndarray):
        return part
    if part.ndim == 1:
        return part.tolist()
    packed = zlib.compress(np.ascontiguousarray(part, dtype="<f8").tobytes())
    return {"shape": list(part.shape), "float64": base64.b64encode(packed).decode("ascii")}


def _unpacked(part: Any) -> Any:
    if isinstance(part, list):
        return np.array(part, dtype="float64")
    if isinstance(part, Mapping):
        size = 8 * int(np.prod(part["shape"]))
        values = zlib.decompressobj().decompress(base64.b64decode(part["float64"]), size)
        return np.frombuffer(values, dtype="<f8").reshape(part["shape"])
    return part
