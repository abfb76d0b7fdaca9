"""Fractions skill score: does the forecast have as much rain in the neighbourhood as came?

Roberts and Lean 2008, Mon. Weather Rev. 136, 78-97: 1 - Σ (f - o)² / Σ (f² + o²), with the shares f
and o of a window in which a threshold is reached, summed over cells and forecasts alike.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
import pandas as pd
import xarray as xr
from pydantic import AfterValidator, Field
from scipy import ndimage

from climlstm.evaluation.bootstrap import Real
from climlstm.evaluation.statistic import (
    GridScore,
    area_mean,
    case_table,
    mean_of_members,
    members_of,
    ratio,
)
from climlstm.grid import grid_of
from climlstm_nowcast.categorical import Thresholds, distinct, exceeding

Windows = Annotated[tuple[Annotated[float, Field(gt=0)], ...], AfterValidator(distinct)]


@dataclass(frozen=True)
class FSS(GridScore):
    """Fractions skill score at each threshold and window: 1 at best, 0 where no event is shared.

    Metrics are called `fss_0.5_10km`: threshold, in the unit of the variable, and width of the
    window. Missing cells, of forecast or truth, are left out of the shares of their windows, and
    windows count where their middle is known. A window that ends beyond the rim counts what is
    inside. Where an event fills less than 1 % of the area the score says little
    (Roberts and Lean 2008). Of an ensemble, its mean is scored.
    """

    metric, units = "fss", "1"

    thresholds: Thresholds = (0.5, 2.0)
    """Events are values of at least so much, in the unit of the variable."""
    windows_km: Windows = (5.0, 20.0)
    """Widths of the square windows, rounded to an odd number of cells."""

    def score(
        self, forecast: xr.Dataset, truth: xr.Dataset, *, weight: xr.DataArray, **_: Any
    ) -> pd.DataFrame:
        """Area means of (f - o)² and f² + o² of one initialisation."""
        grid = grid_of(truth)
        wraps = grid.continuation.wraps
        found = {}
        for channel, members, observed in members_of(forecast, truth):
            predicted = mean_of_members(members)
            columns: dict[str, Real] = {}
            for limit, said, came, known in exceeding(self.thresholds, predicted, observed):
                for width in self.windows_km:
                    size = [2 * round((width / km - 1) / 2) + 1 for km in grid.cell_km]
                    f, o = shares([said, came], known, size, wraps=wraps)
                    key = f"{limit:g}_{width:g}km"
                    columns[f"error_{key}"] = area_mean((f - o) ** 2, weight)
                    columns[f"worst_{key}"] = area_mean(f**2 + o**2, weight)
            found[channel] = columns
        return case_table(forecast, weight, found)

    def summarise(self, scores: pd.DataFrame) -> pd.DataFrame:
        """The score over all initialisations, with intervals."""
        tables = []
        for limit in self.thresholds:
            for width in self.windows_km:
                key = f"{limit:g}_{width:g}km"
                columns = [f"error_{key}", f"worst_{key}"]
                tables.append(self.rows(f"fss_{key}", [scores], self.finish, columns=columns))
        return pd.concat(tables, ignore_index=True)

    def finish(self, error: Real, worst: Real) -> Real:
        return 1 - ratio(error, worst)


def shares(
    events: Sequence[np.ndarray], known: np.ndarray, size: Sequence[int], *, wraps: bool = False
) -> list[Real]:
    """Shares of known cells in the window around each cell that are events; 0 where none is known.

    events, known: bool (L, H, W), events only where known; size: cells in rows and columns, odd.
    Cells that are not known themselves are 0 too, so that they add nothing. wraps: whether the last
    column is a neighbour of the first.
    """

    modes = ["constant", "constant", "wrap" if wraps else "constant"]

    def total(field: np.ndarray) -> Real:
        window = (1, *(max(1, n) for n in size))
        summed = ndimage.uniform_filter(field.astype("float64"), window, mode=modes)
        return np.asarray(np.round(summed * window[1] * window[2]))

    counted = total(known)
    return [np.where(known, ratio(total(each), counted), 0.0) for each in events]
