"""From fields to tracks in one call."""

from collections.abc import Mapping
from pathlib import Path

import pandas as pd
import xarray as xr

from climlstm.errors import DataError
from climlstm_storms.linking import link
from climlstm_storms.search import detect
from climlstm_storms.selection import Recipe


def track(
    dataset: xr.Dataset,
    recipe: Recipe,
    *,
    source: str = "fields",
    names: Mapping[str, str] | None = None,
) -> pd.DataFrame:
    """Storm tracks in the fields of an analysis, or of forecasts, each initialisation by itself.

    dataset, names: as for `detect`, which searches the chunks of a lazy dataset in parallel.
    recipe: one of RECIPES, or another; its wind thresholds are fitted to the grid.
    Returns the table of tracks (TRACK_TYPES).
    """
    nodes = detect(dataset, recipe.detector, names=names)
    spacing = float(nodes["spacing_deg"].max()) if len(nodes) else 0.0
    tracks = link(nodes, recipe.linker, source=source)
    return recipe.on_grid(spacing).selection.choose(tracks)


def open_fields(path: str | Path) -> xr.Dataset:
    """Fields from a Zarr store or a NetCDF file, lazily, in chunks of whole maps.

    Raises DataError where it cannot be opened.
    """
    name = str(path)
    zarr = name.rstrip("/").endswith(".zarr") or "://" in name or Path(name).is_dir()
    try:
        if zarr:
            return xr.open_zarr(name)
        return xr.open_dataset(name, engine="netcdf4", chunks={})
    except (OSError, ValueError, KeyError) as error:
        kind = "Zarr store" if zarr else "NetCDF file"
        raise DataError(
            f"'{name}' cannot be opened as a {kind}: {type(error).__name__}: {error}"
        ) from error
