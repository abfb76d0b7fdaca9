"""The properties that every kind of grid has, and the grid of a dataset."""

from typing import Any, Protocol

import numpy as np
import xarray as xr

from climlstm.errors import DataError
from climlstm.grid.latlon import Continuation, LatLon, Real
from climlstm.grid.plane import Plane

KINDS = {each.kind: each for each in (LatLon, Plane)}


class Grid(Protocol):
    """Rows and columns of a field, north to south and eastward; geography is asked for here."""

    @property
    def kind(self) -> str:
        """Name of the kind, as stores keep it."""
        ...

    @property
    def shape(self) -> tuple[int, int]:
        """Numbers of rows and columns (H, W)."""
        ...

    @property
    def latitude(self) -> Real:
        """Degrees north of each cell (H, W)."""
        ...

    @property
    def longitude(self) -> Real:
        """Degrees east of each cell (H, W)."""
        ...

    @property
    def area(self) -> Real:
        """Relative area of each cell (H, W), with mean 1."""
        ...

    @property
    def continuation(self) -> Continuation:
        """Neighbours beyond each side."""
        ...

    def coordinates(self) -> dict[str, tuple[str, Real, dict[str, Any]]]:
        """CF coordinates that a dataset on this grid has, for xr.Dataset(coords=)."""
        ...


def grid_of(data: xr.Dataset | xr.DataArray) -> Grid:
    """The grid of data with coordinates `latitude` and `longitude` in our order (see `axes`)."""
    rows, columns = (
        np.asarray(data[name].values, dtype="float64") for name in ("latitude", "longitude")
    )
    return kind_of(data["latitude"])(rows, columns)


def kind_of(latitude: xr.DataArray) -> type[LatLon]:
    """The class of grid that a coordinate says it belongs to; LatLon unless it says otherwise.

    Raises DataError for a kind that this version does not know.
    """
    kind = latitude.attrs.get("grid", LatLon.kind)
    if kind not in KINDS:
        raise DataError(
            f"The coordinate '{latitude.name}' says that its grid is '{kind}', but climlstm knows "
            f"only {', '.join(KINDS)}. Open the data with the version that wrote them."
        )
    return KINDS[kind]
