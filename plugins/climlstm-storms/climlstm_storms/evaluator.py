"""The evaluator `storms`: storm tracks of forecasts, scored against true ones."""

import logging
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np
import pandas as pd
import xarray as xr

from climlstm.evaluation.bootstrap import GroupBootstrap
from climlstm.files import write_whole
from climlstm_storms.ensemble import strike_probability
from climlstm_storms.formats import read_tracks
from climlstm_storms.linking import link
from climlstm_storms.matching import CASE, follow
from climlstm_storms.persistence import baseline_scores
from climlstm_storms.scores import (
    grid_snap_floor_km,
    mean_rows,
    paired_difference,
    score_table,
    summarise,
)
from climlstm_storms.search import SPACINGS, detect
from climlstm_storms.selection import RECIPES, Preset, Recipe, Selection
from climlstm_storms.sphere import KM_PER_DEGREE
from climlstm_storms.tracks import NO_LEAD, NO_TIME, TRACK_TYPES, track_keys
from climlstm_storms.verification import Region, Rules, Verification, verify
from climlstm_storms.write import fits_atcf, write_tracks

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Storms:
    """Storm tracks: position, motion, intensity, detection and genesis, against the true storms.

    Scoring one forecast finds the storm centres in it and in the truth; summing up links all of
    them, so that true storms live beyond one forecast, matches them and compares.
    """

    requires: ClassVar[tuple[str, ...]] = ("msl",)
    needs: ClassVar[tuple[str, ...]] = ("past",)
    api_version: ClassVar[int] = 1
    headline: ClassVar[tuple[str, ...]] = (
        *("position_error", "persistence_track_error", "grid_snap_floor", "pod"),
    )
    """Metrics to show where there is room for a few."""
    definitions: ClassVar[dict[str, str]] = {
        "position_error": "distance between the centres of forecast and true storm, in the mean "
        "over all storms that were matched",
        "persistence_track_error": "the same for storms that go on as they went before the start",
        "grid_snap_floor": "error that a perfect forecast would have, since its centres lie at "
        "points of the grid",
        "pod": "probability of detection: share of the true storms that the forecast has, too",
    }
    """Metrics of the headline in words, for reports."""

    preset: Preset = "any"
    """Kind of storms: any closed low, extratropical or tropical ones (see RECIPES)."""
    recipe: Recipe | None = None
    """Detector, linker and selection in full, instead of a preset."""
    mode: Literal["free", "guided"] = "free"
    """`free`: find tracks in the forecast and match them. `guided`: follow the true storms that are
    there at the start through the forecast's minima."""
    max_distance_km: float = 300.0
    """Greatest distance at which tracks can be the same storm; one grid spacing at least."""
    min_overlap: int = 2
    """Common times within that distance that make a match."""
    best_tracks: str | None = None
    """File of best tracks (see `read_tracks`), as the truth instead of the true fields."""
    refine: bool = True
    """Whether centres are fitted below the grid spacing."""
    closed_edges: bool = False
    """Whether the edge of a regional domain may close a contour."""
    region: Region = field(default_factory=Region)
    bootstrap: GroupBootstrap = field(default_factory=GroupBootstrap)

    def score(
        self, forecast: xr.Dataset, truth: xr.Dataset, *, past: xr.Dataset | None = None
    ) -> pd.DataFrame:
        """Storm centres of one forecast and of the truth at its valid times, one row each.

        past: the truth of the day before the start, as lead times up to zero; it shows the motion
            of storms that are there already, for the persistence track.

        Columns as from `detect`, and `source`: forecast or truth. NaNs are missing data.
        """
        detector = searched = self._recipe.detector
        if self.mode == "guided":
            searched = replace(detector, contour_pa=0.0, warm_core="ignored", merge_deg=0.0)
        tables = [detect(forecast, searched).assign(source="forecast")]
        if self.best_tracks is None:
            if "init_time" not in truth.coords:
                truth = truth.assign_coords(init_time=forecast["init_time"])
            tables.append(detect(truth, detector).assign(source="truth"))
            if past is not None and past.sizes["lead_time"]:
                tables.append(detect(past, detector).assign(source="truth"))
        return pd.concat(tables, ignore_index=True)

    def summarise(self, scores: pd.DataFrame) -> pd.DataFrame:
        """Scores by lead time, with the persistence track and the grid-snap floor beside them.

        Metrics: position_error (mean; _median, _q25, _q75), along_track_error (positive: too
        fast), cross_track_error (positive: to the right), slp_bias, wind_bias, and
        absolute values of these (_abs_); pod, far, misses; persistence_track_error, and
        position_error_difference, by which the forecast errs more than it, for the same storms;
        grid_snap_floor; and for forecasts as a whole (lead time NaT) pod_storms, far_tracks,
        genesis_time_error (positive: late), genesis_distance.
        """
        scores = _plain(scores)
        forecast, truth = self._forecast_tracks(scores), self._true_tracks(scores)
        found = self._verify(scores, forecast, truth)
        floor = mean_rows("grid_snap_floor", _with_floor(scores, found), "floor_km", self.bootstrap)
        region = self.region.name
        tables = [
            summarise(found, self.bootstrap, region),
            baseline_scores(truth, found, region, self.bootstrap),
            score_table(floor, region),
        ]
        return pd.concat([table for table in tables if len(table)], ignore_index=True)

    def compare(self, scores: pd.DataFrame, reference: pd.DataFrame) -> pd.DataFrame:
        """Position errors less those of another forecast of the same storms; negative: better."""
        own, other = self.verification(scores).errors, self.verification(reference).errors
        return score_table(paired_difference(own, other, self.bootstrap), self.region.name)

    def tracks(self, scores: pd.DataFrame) -> pd.DataFrame:
        """Tracks that are scored: true storms, and forecast tracks that meet the same conditions or
        are matched with one of them."""
        scores = _plain(scores)
        forecast, truth = self._forecast_tracks(scores), self._true_tracks(scores)
        truth = truth[truth["time"].between(scores["time"].min(), scores["time"].max())]
        found = self._verify(scores, forecast, truth)
        storms = self._selection(scores).choose(truth)
        matched = track_keys(found.pairs[found.pairs["storm_id"].isin(storms["track_id"])])
        counted = track_keys(found.alarms)
        kept = forecast[track_keys(forecast).isin({*matched, *counted})]
        tables = [table for table in (kept, storms) if len(table)]
        return pd.concat(tables or [kept], ignore_index=True)

    def write(self, scores: pd.DataFrame, folder: Path) -> list[Path]:
        """Write the table of `tracks` as tracks.csv and tracks.nc (CF trajectories), the forecast
        ones as an ATCF a-deck, tracks.dat, and of an ensemble strike_probability.nc.

        No deck where initialisations or lead times are no whole hours, which it cannot hold.
        """
        tracks = self.tracks(scores)
        forecast = tracks[tracks["source"] == "forecast"]
        tables = {"tracks.csv": tracks, "tracks.nc": tracks}
        if fits_atcf(forecast):
            tables["tracks.dat"] = forecast
        for name, table in tables.items():
            write_tracks(table, folder / name)
        paths = [folder / name for name in tables]
        members = int(scores.loc[scores["source"] == "forecast", "member"].nunique())
        if members > 1:
            paths.append(folder / "strike_probability.nc")
            latitude, longitude = np.arange(90.0, -91.0, -1.0), np.arange(-180.0, 180.0)
            strikes = strike_probability(forecast, latitude, longitude, members=members)
            with write_whole(paths[-1]) as written:
                strikes.astype("float32").to_netcdf(written, engine="netcdf4")
        return paths

    def verification(self, scores: pd.DataFrame) -> Verification:
        """Forecast and true tracks, matched, point by point."""
        scores = _plain(scores)
        return self._verify(scores, self._forecast_tracks(scores), self._true_tracks(scores))

    def _verify(
        self, scores: pd.DataFrame, forecast: pd.DataFrame, truth: pd.DataFrame
    ) -> Verification:
        rules = Rules(
            max_distance_km=max(self.max_distance_km, _spacings(scores)[0] * KM_PER_DEGREE),
            min_overlap=self.min_overlap,
            selection=self._selection(scores),
            region=self.region,
        )
        known = None
        if self.mode == "guided":
            known = forecast[[*CASE, "track_id"]].drop_duplicates()
            known = known.assign(storm_id=known["track_id"])
        found = verify(forecast, truth, rules, cases=_cases(scores), pairs=known)
        if found.nothing:
            log.warning("Evaluator storms: %s", found.nothing)
        return found

    def _selection(self, scores: pd.DataFrame) -> Selection:
        return self._recipe.on_grid(_spacings(scores)[0]).selection

    @property
    def _recipe(self) -> Recipe:
        recipe = self.recipe or RECIPES[self.preset]
        refined, closed = recipe.detector.refine, recipe.detector.closed_edges
        detector = replace(
            recipe.detector,
            refine=self.refine and refined,
            closed_edges=self.closed_edges or closed,
        )
        return replace(recipe, detector=detector)

    def _forecast_tracks(self, scores: pd.DataFrame) -> pd.DataFrame:
        nodes = scores[scores["source"] == "forecast"].drop(columns="source")
        if self.mode == "guided":
            return follow(nodes, self._true_tracks(scores), max_gap_h=self._recipe.linker.max_gap_h)
        return link(nodes, self._recipe.linker, source="forecast")

    def _true_tracks(self, scores: pd.DataFrame) -> pd.DataFrame:
        """Tracks of the truth at all times that any forecast verifies at, as one record."""
        if self.best_tracks is not None:
            return read_tracks(self.best_tracks)
        nodes = scores[scores["source"] == "truth"]
        earliest = nodes.groupby("time")["init_time"].transform("min")
        nodes = nodes[nodes["init_time"] == earliest]
        nodes = nodes.assign(init_time=NO_TIME, lead_time=NO_LEAD, member=0, source="truth")
        return link(nodes, self._recipe.linker, source="truth")


def _plain(scores: pd.DataFrame) -> pd.DataFrame:
    """The table of `score` with rows numbered and times in one resolution, as merging needs it."""
    times = {name: TRACK_TYPES[name] for name in ("init_time", "time", "lead_time")}
    return scores.astype(times).reset_index(drop=True)


def _cases(scores: pd.DataFrame) -> pd.DataFrame:
    steps = scores.loc[scores["source"] == "forecast", [*CASE, "lead_time", "time"]]
    return steps.drop_duplicates(ignore_index=True)


def _spacings(scores: pd.DataFrame) -> list[float]:
    """Greatest SPACINGS of the grids; 0 without any."""
    return scores[list(SPACINGS)].max().fillna(0.0).tolist()


def _with_floor(scores: pd.DataFrame, found: Verification) -> pd.DataFrame:
    _, rows, columns = _spacings(scores)
    latitude = found.errors["true_lat"] * (columns > 0)  # cells narrow only between meridians
    floor = grid_snap_floor_km(latitude, rows, columns or rows)
    return found.errors.assign(floor_km=floor)
