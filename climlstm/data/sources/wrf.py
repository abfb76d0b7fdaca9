"""WRF output as CF has it: times, places, projection, and winds in the middle of cells.

WRF writes times as text, latitudes and longitudes that repeat in time, the projection as global
attributes, and winds on the sides of cells (Arakawa C), along the grid.
"""

from collections.abc import Hashable

import numpy as np
import xarray as xr

from climlstm.data.sources.origin import as_dask
from climlstm.grid.mappings import from_wrf
from climlstm.grid.projected import mapping

PLACES = {"XLAT": ("latitude", "degrees_north"), "XLONG": ("longitude", "degrees_east")}

STAGGERED = {"west_east_stag": "west_east", "south_north_stag": "south_north"}
"""Dimensions of the sides of cells, and of their middles."""

WINDS = {"U": "x_wind", "V": "y_wind", "U10": "x_wind", "V10": "y_wind"}


def as_cf(opened: xr.Dataset) -> xr.Dataset:
    """A WRF file under CF, lazy; any other dataset as it is.

    The places of a nest that moves keep their time, and so make no grid.
    """
    if "MAP_PROJ" not in opened.attrs or not set(PLACES) <= set(map(str, opened.variables)):
        return opened
    sides = [n for n in opened.variables if str(n).startswith(("XLAT_", "XLONG_"))]
    source = _in_middles(opened.drop_vars(sides))
    moves = any(_moves(source[name]) for name in PLACES)
    for name, (standard_name, units) in PLACES.items():
        place = source[name]
        if "Time" in place.dims and not moves:
            place = place.isel(Time=0)
        source = source.assign_coords({name: place.drop_vars([*place.coords])})
        source[name].attrs = {"standard_name": standard_name, "units": units}
    if "Times" in source:
        source = source.drop_vars("XTIME", errors="ignore")
        source = source.assign_coords(time=("Time", _times(source["Times"])))
        source = source.drop_vars("Times").swap_dims(Time="time")
        source["time"].attrs = {"standard_name": "time"}
    crs = from_wrf(opened.attrs)
    if crs is not None and not moves:
        source = source.assign_coords(crs=((), 0, mapping(crs)))
    for name, standard_name in WINDS.items():
        if name in source:
            source[name].attrs["standard_name"] = standard_name
    return source


def _in_middles(source: xr.Dataset) -> xr.Dataset:
    """The source with what lies on the sides of cells averaged to their middles."""
    on_sides = {
        name: [dim for dim in STAGGERED if dim in variable.dims]
        for name, variable in source.data_vars.items()
    }
    names = [name for name, dims in on_sides.items() if dims]
    if not names:
        return source
    lazy = as_dask(source[names])
    middles: dict[Hashable, xr.DataArray] = {}
    for name in names:
        values = lazy[name]
        for dim in on_sides[name]:
            size = values.sizes[dim]
            first, second = (values.isel({dim: slice(i, size - 1 + i)}) for i in (0, 1))
            values = ((first + second) / 2).rename({dim: STAGGERED[dim]})
        middles[name] = values.assign_attrs(lazy[name].attrs)
    return source.drop_vars(names).assign(middles)


def _moves(place: xr.DataArray) -> bool:
    """Whether cells have other places at the end than at the beginning: a nest that moves."""
    if "Time" not in place.dims:
        return False
    first, last = (place.isel(Time=at).values for at in (0, -1))
    return bool(np.median(np.abs(last - first)) > 1e-4)


def _times(text: xr.DataArray) -> np.ndarray:
    """Times of the texts '2008-10-26_12:00:00'."""
    words = [word.decode() if isinstance(word, bytes) else str(word) for word in text.values]
    return np.array([word.replace("_", "T") for word in words], dtype="datetime64[ns]")
