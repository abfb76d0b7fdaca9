"""Conditions on tracks that count as storms, and the presets of the whole tracker."""

import operator
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import pandas as pd

from climlstm.errors import DataError, nearest
from climlstm_storms.centres import Detector
from climlstm_storms.linking import Linker
from climlstm_storms.mesh import TOLERANCE_DEG
from climlstm_storms.sphere import KM_PER_DEGREE, angle, unit_vectors
from climlstm_storms.tracks import track_keys

_OPERATORS: dict[str, Callable[[Any, Any], Any]] = {
    ">": operator.gt,
    "<": operator.lt,
    ">=": operator.ge,
    "<=": operator.le,
    "=": operator.eq,
    "!=": operator.ne,
}


@dataclass(frozen=True)
class Threshold:
    """A condition on a column that enough points of a track must meet."""

    __pydantic_config__ = {"extra": "forbid"}  # noqa: RUF012

    column: str
    compare: Literal[">", "<", ">=", "<=", "=", "!="]
    value: float
    count: int | Literal["all", "first", "last"] = "all"
    """Least number of points that meet it, or all points, the first or the last one."""

    def holds(self, track: pd.DataFrame) -> bool:
        if self.column not in track:
            raise DataError(
                f"A threshold is set on '{self.column}', which the tracks do not have."
                f"{nearest(self.column, map(str, track.columns))}"
            )
        met = _OPERATORS[self.compare](track[self.column].to_numpy(dtype="float64"), self.value)
        if isinstance(self.count, int):
            return int(met.sum()) >= self.count
        return bool({"first": met[0], "last": met[-1], "all": met.all()}[self.count])


@dataclass(frozen=True)
class Selection:
    """Conditions on a track, as the options of StitchNodes: a track exactly at a limit meets it."""

    __pydantic_config__ = {"extra": "forbid"}  # noqa: RUF012

    min_points: int = 2
    min_duration_h: float = 0.0
    """Time from the first to the last point, in hours."""
    min_path_deg: float = 0.0
    """Length of the path, great-circle degrees."""
    min_endpoint_deg: float = 0.0
    """Distance of the last point from the first, great-circle degrees."""
    thresholds: tuple[Threshold, ...] = ()

    def choose(self, tracks: pd.DataFrame) -> pd.DataFrame:
        """The tracks that meet all conditions."""
        if tracks.empty:
            return tracks
        codes, _ = pd.factorize(track_keys(tracks))
        order = np.lexsort((tracks["time"].to_numpy(), codes))
        codes = codes[order]
        first = np.flatnonzero(np.append(True, codes[1:] != codes[:-1]))
        last = np.append(first[1:], codes.size) - 1
        times = tracks["time"].to_numpy()[order]
        vectors = unit_vectors(tracks["lat"], tracks["lon"])[order]
        legs = np.append(angle(vectors[1:], vectors[:-1]), 0.0)
        legs[last] = 0.0  # from the end of a track to the start of the next
        kept = last - first + 1 >= self.min_points
        kept &= times[last] - times[first] >= np.timedelta64(int(self.min_duration_h * 3600), "s")
        kept &= np.add.reduceat(legs, first) >= self.min_path_deg - TOLERANCE_DEG
        kept &= angle(vectors[first], vectors[last]) >= self.min_endpoint_deg - TOLERANCE_DEG
        for number in np.flatnonzero(kept) if self.thresholds else ():
            track = tracks.iloc[order[first[number] : last[number] + 1]]
            kept[number] = all(threshold.holds(track) for threshold in self.thresholds)
        chosen = np.sort(order[np.repeat(kept, last - first + 1)])
        return tracks.iloc[chosen].reset_index(drop=True)

    def unmet(self, tracks: pd.DataFrame) -> list[str]:
        """Conditions that none of the tracks meets, each looked at by itself."""
        alone = [(name, value) for name, value in vars(self).items() if name != "thresholds"]
        alone += [("thresholds", (threshold,)) for threshold in self.thresholds]
        return [
            f"{name}={value}"
            for name, value in alone
            if Selection(**{"min_points": 1, name: value}).choose(tracks).empty
        ]


@dataclass(frozen=True)
class Recipe:
    """Detector, linker and selection together."""

    detector: Detector
    linker: Linker
    selection: Selection

    def on_grid(self, spacing_deg: float) -> "Recipe":
        """The same with wind thresholds that the grid can reach; unchanged without `adapt`.

        The detector's distances are adapted when it meets its grid (see `Detector.on_grid`).
        """
        if not self.detector.adapt:
            return self
        factor = wind_factor(spacing_deg)
        thresholds = tuple(
            replace(t, value=t.value * factor) if t.column == "wind" else t
            for t in self.selection.thresholds
        )
        return replace(self, selection=replace(self.selection, thresholds=thresholds))


def wind_factor(spacing_deg: float) -> float:
    """Greatest wind of a storm on this grid, relative to one of 0.25° (at most 1).

    Walsh et al. (2007), J. Climate 20, 2307-2314: a storm of 17.5 m/s at a point has about 10 m/s
    on a grid of 300 km, with a straight line between. Coarser grids are taken as 300 km.
    """
    spacing_km = np.clip(spacing_deg * KM_PER_DEGREE, 0.25 * KM_PER_DEGREE, 300.0)
    wind = 17.5 - 7.5 * np.array([spacing_km, 0.25 * KM_PER_DEGREE]) / 300.0
    return float(wind[0] / wind[1])


Preset = Literal["any", "extratropical", "tropical"]

RECIPES: dict[str, Recipe] = {
    "any": Recipe(Detector(), Linker(), Selection(min_duration_h=24)),
    "extratropical": Recipe(
        Detector(wind_deg=6.0),
        Linker(range_deg=9.0, max_gap_h=12.0),
        Selection(min_duration_h=24, min_endpoint_deg=12.0),
    ),
    "tropical": Recipe(
        Detector(warm_core="required"),
        Linker(range_deg=8.0, max_gap_h=24.0),
        Selection(
            min_points=2,
            min_duration_h=54,
            thresholds=(
                Threshold("wind", ">=", 10.0, 10),
                Threshold("lat", "<=", 50.0, 10),
                Threshold("lat", ">=", -50.0, 10),
            ),
        ),
    ),
}
"""`tropical` is the recipe of Ullrich et al. (2021), but for its limit on orography;
`extratropical` that in common use with TempestExtremes: any closed low that travels 12° and lives a
day, with the greatest wind within 6°, since winds of wide lows peak far from the centre; `any` all
closed lows that live a day."""
