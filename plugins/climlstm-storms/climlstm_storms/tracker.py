"""From fields to tracks in one call."""

from collections.abc import Mapping

import pandas as pd
import xarray as xr

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
