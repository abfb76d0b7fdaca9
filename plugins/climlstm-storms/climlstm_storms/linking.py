"""Tracks from storm centres: which centre of the next step is the same storm.

`assign` finds the best one-to-one assignment of centres to the expected positions of storms, so two
storms that cross keep their identity. `tempest` takes the nearest centre, as StitchNodes of
TempestExtremes does (Ullrich et al. 2021, Geosci. Model Dev. 14, 5023-5048).
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd
from scipy.optimize import linear_sum_assignment
from scipy.spatial import cKDTree

from climlstm.errors import DataError
from climlstm_storms.mesh import TOLERANCE_DEG
from climlstm_storms.search import SPACINGS
from climlstm_storms.sphere import Index, Real, angle, extrapolate, unit_vectors
from climlstm_storms.tracks import track_table

DEVIATIONS = 3.0
"""Range in standard deviations of the distance from the expected position."""

FARTHEST = 1.5
"""Greatest distance from the expected position, in ranges. It is more than one because lows with
several centres move erratically; the range itself binds the distance from the last centre."""

MOTION_H = 12.0
"""Hours over which the motion of a storm is taken: single steps are too noisy where a low has
several centres, or stays on grid points."""

HOUR = 3600.0


@dataclass(frozen=True)
class Linker:
    """Method and limits by which centres of successive times are linked."""

    __pydantic_config__ = {"extra": "forbid"}  # noqa: RUF012

    method: Literal["assign", "tempest"] = "assign"
    range_deg: float = 8.0
    """Greatest move of a storm: in six hours for `assign`, between linked centres for `tempest`.
    A centre exactly at the range (to 1e-6 degrees) is linked; in StitchNodes rounding decides."""
    max_gap_h: float = 24.0
    """Greatest time between linked centres, in hours: steps without a centre are bridged. At least
    the time step of the data, such as a day."""


def link(nodes: pd.DataFrame, linker: Linker, *, source: str) -> pd.DataFrame:
    """Tracks of all initialisations and members, each linked by itself; single centres too.

    nodes: as from `detect`. source: origin of the tracks, for the table. With `tempest`, single
    centres are no tracks, and one centre may belong to two tracks, as with StitchNodes.
    """
    nodes = nodes.reset_index(drop=True)
    if nodes["time"].isna().any():
        raise DataError("Storm centres have no times, so they cannot be linked. Add a time axis.")
    link_steps = _assign if linker.method == "assign" else _stitch
    if linker.method == "tempest" and {"j", "i"} <= set(nodes):
        nodes = nodes.sort_values(["time", "j", "i"], kind="stable", ignore_index=True)
    several = nodes["member"].nunique() > 1
    rows: list[int] = []
    names: list[str] = []
    for (init_time, member), group in nodes.groupby(["init_time", "member"], dropna=False):
        steps = Steps.of(group)
        prefix = "" if pd.isna(init_time) else f"{init_time:%Y%m%dT%H}-"
        prefix += f"m{member:02d}-" if several else ""
        chains = sorted(link_steps(steps, linker), key=lambda chain: chain[0])
        for number, chain in enumerate(chains, start=1):
            rows += [int(steps.rows[step][place]) for step, place in chain]
            names += [f"{prefix}{number:04d}"] * len(chain)
    tracks = nodes.iloc[rows].assign(track_id=np.array(names, dtype=str), source=source)
    return track_table(tracks.drop(columns=list(SPACINGS), errors="ignore"))


Place = tuple[int, int]
"""A centre: its step, and its number in the step."""


@dataclass(frozen=True)
class Steps:
    """The centres of one initialisation and member by steps; some steps may have none."""

    seconds: Real
    """Times of the steps (T,), since the first."""
    vectors: list[Real]
    """Unit vectors (N, 3) of the centres in each step."""
    rows: list[Index]
    """Rows of the centres in their table, in each step."""
    spacing_deg: float

    @classmethod
    def of(cls, group: pd.DataFrame) -> "Steps":
        times, step = np.unique(group["time"].to_numpy(), return_inverse=True)
        vectors = unit_vectors(group["lat"], group["lon"])
        there = group["lat"].notna().to_numpy()
        numbers = [np.flatnonzero(there & (step == t)) for t in range(times.size)]
        index = group.index.to_numpy()
        return cls(
            seconds=np.asarray((times - times[0]) / np.timedelta64(1, "s"), dtype="float64"),
            vectors=[vectors[n] for n in numbers],
            rows=[index[n] for n in numbers],
            spacing_deg=float(group["spacing_deg"].max()) if "spacing_deg" in group else 0.0,
        )

    def longest_gap(self, linker: Linker) -> float:
        """Greatest time between linked centres, in seconds."""
        step = np.diff(self.seconds).min(initial=np.inf) if self.seconds.size > 1 else 0.0
        return max(linker.max_gap_h * HOUR, float(step)) + 1


Storm = list[Place]
"""A track while it grows."""


def _motion_start(storm: Storm, steps: Steps) -> Place:
    """Centre from which the motion to the last one is taken: at most MOTION_H before it."""
    earliest = steps.seconds[storm[-1][0]] - MOTION_H * HOUR
    recent = [place for place in storm[:-2] if steps.seconds[place[0]] >= earliest]
    return [*recent, *storm[-2:]][0]


def _assign(steps: Steps, linker: Linker) -> list[Storm]:
    """Tracks by best assignment, step after step.

    The assignment is the likeliest one if the distance from the expected position is normal in two
    dimensions, with a standard deviation of a third of the range, which grows with the time since
    the last centre. A centre beyond the range starts a new track. A storm that was missing for a
    step can take the centre of one that was not only if its claim is better in spite of its
    uncertainty.
    """
    ended: list[Storm] = []
    storms: list[Storm] = []
    for step, (seconds, vectors) in enumerate(zip(steps.seconds, steps.vectors, strict=True)):
        earliest = seconds - steps.longest_gap(linker)
        ended += [storm for storm in storms if steps.seconds[storm[-1][0]] < earliest]
        storms = [storm for storm in storms if steps.seconds[storm[-1][0]] >= earliest]
        free = set(range(len(vectors)))
        if storms and free:
            for storm, number in _best_pairs(steps, storms, seconds, vectors, linker):
                storm.append((step, number))
                free.discard(number)
        storms += [[(step, number)] for number in sorted(free)]
    return [*ended, *storms]


def _best_pairs(
    steps: Steps, storms: list[Storm], seconds: float, vectors: Real, linker: Linker
) -> Iterator[tuple[Storm, int]]:
    """Pairs of a storm and the number of a centre in the best assignment."""
    moves = [_motion_start(storm, steps) for storm in storms], [storm[-1] for storm in storms]
    start, end = (np.array([steps.vectors[step][n] for step, n in places]) for places in moves)
    then, now = (np.array([steps.seconds[step] for step, _ in places]) for places in moves)
    factor = (seconds - now) / np.where(now > then, now - then, np.inf)
    expected = extrapolate(start, end, factor)
    hours = ((seconds - now) / HOUR)[:, None]
    least = np.min(hours)
    reach = np.maximum(linker.range_deg * hours / 6, 1.5 * steps.spacing_deg)
    moved = angle(end[:, None], vectors[None])
    off = angle(expected[:, None], vectors[None])
    spread = reach / DEVIATIONS
    cost = off**2 / (2 * spread**2) + 2 * np.log(hours / least)
    worst = (FARTHEST * DEVIATIONS) ** 2 / 2 + 2 * np.log(hours / least).max()
    within = (moved <= reach + TOLERANCE_DEG) & (off <= FARTHEST * reach)
    gain = np.where(within, worst - cost, 0.0)
    for storm, number in zip(*linear_sum_assignment(gain, maximize=True), strict=True):
        if gain[storm, number] > 0:
            yield storms[storm], int(number)


def _stitch(steps: Steps, linker: Linker) -> Iterator[Storm]:
    """Tracks as StitchNodes makes them.

    Each centre is linked to the nearest of the next step if that is within range; else to the
    nearest of the step after, while the gap allows. The range does not grow with the gap. Tracks
    are followed from the earliest centres on, and of one time in order of the grid, row by row;
    each link belongs to one, so a track ends where it meets another that went on before it.
    """
    trees = [cKDTree(vectors) if len(vectors) else None for vectors in steps.vectors]
    next_place: dict[Place, Place] = {}
    for step, vectors in enumerate(steps.vectors):
        for number, vector in enumerate(vectors):
            for later in range(step + 1, len(trees)):
                if steps.seconds[later] - steps.seconds[step] > steps.longest_gap(linker):
                    break
                tree = trees[later]
                if tree is None:
                    continue
                nearest = int(tree.query(vector)[1])
                moved = angle(vector, steps.vectors[later][nearest])
                if moved <= linker.range_deg + TOLERANCE_DEG:
                    next_place[step, number] = (later, nearest)
                    break
    for place in sorted(next_place):
        chain = [place]
        while chain[-1] in next_place:
            chain.append(next_place.pop(chain[-1]))
        if len(chain) > 1:
            yield chain
