"""Tracks from storm centres: which centre of the next step is the same storm.

Two ways. `assign` finds the best of all one-to-one assignments to the positions to which storms
would have moved on; so two storms that cross keep their identity. `tempest` is StitchNodes of
TempestExtremes (Ullrich et al. 2021, Geosci. Model Dev. 14, 5023-5048): the nearest centre.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment
from scipy.spatial import cKDTree

from climlstm.errors import DataError
from climlstm_storms.search import SPACINGS
from climlstm_storms.sphere import Real, angle, extrapolate, unit_vectors
from climlstm_storms.tracks import no_tracks, track_table

Seconds = NDArray[np.float64]

DEVIATIONS = 3.0
"""The range is taken as so many standard deviations of the distance from the expected position."""

FARTHEST = 1.5
"""Ranges from the expected position at which a storm rather ends: motion of lows with several
centres is erratic, so the range itself binds only the distance from the last centre."""

MOTION_H = 12.0
"""Hours over which the motion of a storm is taken: single steps are too noisy, above all where a
low has several centres, or stays on grid points."""

HOUR = 3600.0


@dataclass(frozen=True)
class Linker:
    """How centres of successive times are linked."""

    __pydantic_config__ = {"extra": "forbid"}  # noqa: RUF012

    method: Literal["assign", "tempest"] = "assign"
    range_deg: float = 8.0
    """How far a storm may move: in six hours for `assign`, between linked centres for `tempest`."""
    max_gap_h: float = 24.0
    """Time between linked centres at most, in hours; steps without a centre are bridged so far."""


def link(nodes: pd.DataFrame, linker: Linker, *, source: str) -> pd.DataFrame:
    """Tracks of all initialisations and members, each linked by itself; single centres too.

    nodes: as from `detect`. source: what the tracks come from, for the table. With `tempest`,
    single centres are no tracks and a centre may end one track within another, as there.
    """
    tables = []
    nodes = nodes.reset_index(drop=True)
    for (init_time, member), group in nodes.groupby(["init_time", "member"], dropna=False):
        steps = Steps(group)
        link_steps = _assign if linker.method == "assign" else _stitch
        prefix = "" if pd.isna(init_time) else f"{init_time:%Y%m%dT%H}-"
        prefix += f"m{member:02d}-" if nodes["member"].nunique() > 1 else ""
        chains = sorted(link_steps(steps, linker), key=lambda chain: chain[0])
        for number, chain in enumerate(chains, start=1):
            rows = group.loc[[steps.label(place) for place in chain]]
            tables.append(rows.assign(track_id=f"{prefix}{number:04d}"))
    if not tables:
        return no_tracks()
    tracks = pd.concat(tables, ignore_index=True).assign(source=source)
    return track_table(tracks.drop(columns=list(SPACINGS), errors="ignore"))


Place = tuple[int, int]
"""A centre: its step, and its number in the step."""


@dataclass
class Steps:
    """The centres of one initialisation and member, step by step; steps without any as well."""

    group: pd.DataFrame
    seconds: Seconds = field(init=False)
    """Times of the steps, after the first."""
    vectors: list[Real] = field(init=False)
    spacing_deg: float = field(init=False)

    def __post_init__(self) -> None:
        if self.group["time"].isna().any():
            raise DataError(
                "Storm centres have no times, so they cannot be linked. Add a time axis."
            )
        times = np.sort(self.group["time"].unique())
        self.seconds = (times - times[0]) / np.timedelta64(1, "s") if times.size else np.empty(0)
        found = self.group.dropna(subset="lat")
        by_time = found.groupby("time", sort=True)
        self._labels = [by_time.groups.get(pd.Timestamp(t), found.index[:0]) for t in times]
        self.vectors = [
            unit_vectors(found.loc[labels, "lat"], found.loc[labels, "lon"])
            for labels in self._labels
        ]
        self.spacing_deg = (
            float(self.group["spacing_deg"].max()) if "spacing_deg" in self.group else 0.0
        )

    def label(self, place: Place) -> int:
        """Row label of a centre in the group."""
        return self._labels[place[0]][place[1]]


@dataclass
class _Storm:
    """A track while it grows."""

    places: list[Place]

    def last(self, steps: Steps) -> tuple[float, Real]:
        step, number = self.places[-1]
        return steps.seconds[step], steps.vectors[step][number]

    def expected(self, steps: Steps, seconds: float) -> Real:
        """Where it would be, had it moved on as in the last hours, or between its last centres."""
        end_seconds, end = self.last(steps)
        if len(self.places) == 1:
            return end
        earlier = [
            p for p in self.places[:-1] if end_seconds - steps.seconds[p[0]] <= MOTION_H * HOUR
        ]
        step, number = earlier[0] if earlier else self.places[-2]
        factor = (seconds - end_seconds) / (end_seconds - steps.seconds[step])
        return extrapolate(steps.vectors[step][number], end, factor)


def _assign(steps: Steps, linker: Linker) -> Iterator[list[Place]]:
    """Tracks by best assignment, step after step.

    Among all assignments, that of the greatest likelihood, when the distance from the expected
    position is normal in two dimensions, with a standard deviation of a third of the range, which
    grows with the time since the last centre. A centre beyond the range starts a new track. A
    storm that was missing for a step cannot take the centre of one that was not, unless its claim
    is better for all its uncertainty.
    """
    storms: list[_Storm] = []
    for step, (seconds, vectors) in enumerate(zip(steps.seconds, steps.vectors, strict=True)):
        recent = seconds - linker.max_gap_h * HOUR - 1
        for storm in storms:
            if storm.last(steps)[0] < recent:
                yield storm.places
        storms = [storm for storm in storms if storm.last(steps)[0] >= recent]
        free = set(range(len(vectors)))
        if storms and free:
            for storm_number, number in _best_pairs(steps, storms, seconds, vectors, linker):
                storms[storm_number].places.append((step, number))
                free.discard(number)
        storms += [_Storm([(step, number)]) for number in sorted(free)]
    for storm in storms:
        yield storm.places


def _best_pairs(
    steps: Steps, storms: list[_Storm], seconds: float, vectors: Real, linker: Linker
) -> Iterator[tuple[int, int]]:
    """Pairs of a storm and a centre in the best assignment."""
    last = [storm.last(steps) for storm in storms]
    hours = np.array([(seconds - then) / HOUR for then, _ in last])[:, None]
    least = np.min(hours)
    reach = np.maximum(linker.range_deg * hours / 6, 1.5 * steps.spacing_deg)
    expected = np.array([storm.expected(steps, seconds) for storm in storms])
    moved = angle(np.array([vector for _, vector in last])[:, None], vectors[None])
    off = angle(expected[:, None], vectors[None])
    spread = reach / DEVIATIONS
    cost = off**2 / (2 * spread**2) + 2 * np.log(hours / least)
    worst = (FARTHEST * DEVIATIONS) ** 2 / 2 + 2 * np.log(hours / least).max()
    gain = np.where((moved <= reach) & (off <= FARTHEST * reach), worst - cost, 0.0)
    for storm_number, number in zip(*linear_sum_assignment(gain, maximize=True), strict=True):
        if gain[storm_number, number] > 0:
            yield int(storm_number), int(number)


def _stitch(steps: Steps, linker: Linker) -> Iterator[list[Place]]:
    """Tracks as StitchNodes makes them.

    From each centre, the nearest of the next step is looked at, and linked if it is within range;
    else the nearest of the step after, while the gap allows. The range does not grow with the gap.
    Tracks are followed from the earliest centres on; each link belongs to one, so a track ends
    where it meets another that went on before it.
    """
    trees = [cKDTree(vectors) if len(vectors) else None for vectors in steps.vectors]
    next_place: dict[Place, Place] = {}
    for step, vectors in enumerate(steps.vectors):
        for number, vector in enumerate(vectors):
            for later in range(step + 1, len(trees)):
                if steps.seconds[later] - steps.seconds[step] > linker.max_gap_h * HOUR + 1:
                    break
                tree = trees[later]
                if tree is None:
                    continue
                nearest = int(tree.query(vector)[1])
                if angle(vector, steps.vectors[later][nearest]) <= linker.range_deg:
                    next_place[step, number] = (later, nearest)
                    break
    for place in sorted(next_place):
        chain = [place]
        while chain[-1] in next_place:
            chain.append(next_place.pop(chain[-1]))
        if len(chain) > 1:
            yield chain
