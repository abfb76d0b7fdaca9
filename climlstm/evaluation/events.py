"""Probabilities of events, "msl < 990 hPa", as an ensemble gives them: how good, how honest.

The probability is the share of members that have the event. The Brier score and its three parts
follow Murphy (1973, J. Appl. Meteor. 12, 595-600), with one class for each number of members, so
that the parts add up to the score exactly: brier = reliability - resolution + uncertainty.
"""

import functools
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Annotated

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import NDArray
from pydantic import AfterValidator

from climlstm.data.sources.units import conversion
from climlstm.errors import DataError
from climlstm.evaluation.bootstrap import Real
from climlstm.evaluation.statistic import (
    KEYS,
    AreaMean,
    GridScore,
    area_mean,
    case_table,
    members_of,
    ratio,
    skill,
)

EVENT = re.compile(
    r"\s*(?P<channel>\w+)\s*(?P<sign>[<>])\s*(?P<limit>[-+.\deE]*\d)\s*(?P<units>.*?)\s*"
)


@dataclass(frozen=True)
class Event:
    """A channel below or above a limit: `msl < 990 hPa`."""

    channel: str
    above: bool
    limit: float
    units: str
    """Unit of the limit; empty: that of the channel."""

    @classmethod
    def parse(cls, text: str) -> "Event":
        """Raises ValueError for anything that does not look like `t2m > 30 degC`."""
        found = EVENT.fullmatch(text)
        if found is None:
            raise ValueError(f"'{text}' is no event; write one as 'msl < 990 hPa' or 't2m > 300'")
        limit = float(found["limit"])
        return cls(found["channel"], found["sign"] == ">", limit, found["units"])

    def limit_in(self, units: str | None) -> float:
        """The limit in the unit of the data. Raises DataError for a unit of another dimension."""
        if not self.units:
            return self.limit
        if units is None:
            raise DataError(
                f"'{self.channel}' has no units, so {self.limit:g} {self.units} means nothing."
            )
        change = conversion(self.units, units)
        return change.scale * self.limit + change.offset

    def happens(self, values: Real, limit: float) -> NDArray[np.bool_]:
        """Where the values have the event, as booleans."""
        return values > limit if self.above else values < limit

    def __str__(self) -> str:
        sign = ">" if self.above else "<"
        return f"{self.channel} {sign} {self.limit:g} {self.units}".rstrip()


def _are_events(texts: tuple[str, ...]) -> tuple[str, ...]:
    if not texts:
        raise ValueError("name one event or more, such as 'msl < 990 hPa'")
    for text in texts:
        Event.parse(text)
    return texts


Events = Annotated[tuple[str, ...], AfterValidator(_are_events)]


@dataclass(frozen=True)
class OfEvents(GridScore):
    """A score of named events, from `means_of` each: by default, shares of members and outcomes.

    Tables of single initialisations have the column `event`.
    """

    events: Events = field(kw_only=True)
    """Events such as `msl < 990 hPa`; without a unit, the limit is in that of the channel."""

    @property
    def requires(self) -> tuple[str, ...]:  # type: ignore[override]
        """The channels of the events."""
        return tuple(dict.fromkeys(event.channel for event in self.parsed))

    @property
    def parsed(self) -> list[Event]:
        return [Event.parse(text) for text in self.events]

    def means_of(
        self, event: Event, limit: float, mean: AreaMean, members: Real, observed: Real
    ) -> dict[str, Real]:
        """Area means (L, R) of one event: where k members have it, and where it then came, by k.

        limit: in the unit of the fields; members (M, L, H, W), observed (L, H, W).
        """
        columns: dict[str, Real] = {}
        for k, (said, came) in enumerate(classes_of(event, limit, members, observed)):
            columns |= {f"said_{k}": mean(said), f"came_{k}": mean(came)}
        return columns

    def score(
        self, forecast: xr.Dataset, truth: xr.Dataset, *, weight: xr.DataArray, **_: object
    ) -> pd.DataFrame:
        """Area means of one initialisation, event by event."""
        mean = functools.partial(area_mean, weight=weight)
        fields = {name: both for name, *both in members_of(forecast, truth)}
        tables = []
        for event in self.parsed:
            limit = event.limit_in(truth[event.channel].attrs.get("units"))
            means = {event.channel: self.means_of(event, limit, mean, *fields[event.channel])}
            tables.append(case_table(forecast, weight, means).assign(event=str(event)))
        return pd.concat(tables, ignore_index=True)


@dataclass(frozen=True)
class Brier(OfEvents):
    """Brier score of each event, its reliability, resolution and uncertainty.

    Metrics are called `brier[msl < 990 hPa]`. Of a single forecast, its yes or no counts as
    probability one or zero.
    """

    metric, units = "brier", "1"

    def summarise(self, scores: pd.DataFrame) -> pd.DataFrame:
        """The score and its parts, event by event, with intervals."""
        tables = []
        for event, cases in scores.groupby("event", sort=False):
            columns = _columns(cases)
            for name, finish in PARTS.items():
                tables.append(self.rows(f"{name}[{event}]", [cases], finish, columns=columns))
        return pd.concat(tables, ignore_index=True)

    def compare(self, scores: pd.DataFrame, reference: pd.DataFrame) -> pd.DataFrame:
        """Brier skill score: 1 - score / score of the reference, over the same cases."""
        tables = []
        for event, cases in scores.groupby("event", sort=False):
            other = reference[reference["event"] == event]
            own, theirs = _columns(cases), _columns(other)

            def finish(*means: Real, number: int = len(own)) -> Real:
                return skill(brier(*means[:number]), brier(*means[number:]))

            both = _side_by_side(cases, other, own, theirs)
            columns = [f"own_{c}" for c in own] + [f"other_{c}" for c in theirs]
            tables.append(self.rows(f"brier_skill[{event}]", [both], finish, columns=columns))
        return pd.concat(tables, ignore_index=True)


@dataclass(frozen=True)
class Reliability(OfEvents):
    """How often an event came where it was foretold with a probability; a table of its own.

    Columns: event, variable, lead_time, region, probability, frequency (NaN where that probability
    was never given), share (of area and cases with that probability), n (cases).
    """

    metric = "reliability"

    def summarise(self, scores: pd.DataFrame) -> pd.DataFrame:
        """Frequencies over all initialisations."""
        number = len(_columns(scores)) // 2
        groups = scores.groupby(["event", *KEYS], observed=True, sort=False)
        means, count = groups.mean(numeric_only=True), groups.size()
        tables = [
            pd.DataFrame(
                {
                    "probability": k / (number - 1),
                    "frequency": ratio(
                        means[f"came_{k}"].to_numpy(), means[f"said_{k}"].to_numpy()
                    ),
                    "share": means[f"said_{k}"],
                    "n": count,
                }
            ).reset_index()
            for k in range(number)
        ]
        return pd.concat(tables, ignore_index=True)


def classes_of(
    event: Event, limit: float, members: Real, observed: Real
) -> list[tuple[Real, Real]]:
    """Where 0, 1, ..., M of the members (M, L, H, W) have the event, and where it then came.

    Both as 1 and 0, NaN where the truth is missing.
    """
    number = event.happens(members, limit).sum(axis=0)
    came, missing = event.happens(observed, limit), np.isnan(observed)
    return [
        (np.where(missing, np.nan, number == k), np.where(missing, np.nan, (number == k) & came))
        for k in range(len(members) + 1)
    ]


def _split(means: Sequence[Real]) -> tuple[Real, Real, Real]:
    """Shares said and came (class, ...), and the probabilities of the classes."""
    said, came = np.stack(means[::2]), np.stack(means[1::2])
    probability = np.arange(len(said)) / (len(said) - 1)
    return said, came, probability.reshape(-1, *[1] * (said.ndim - 1))


def brier(*means: Real) -> Real:
    """Mean squared difference of probability and outcome."""
    said, came, p = _split(means)
    return np.asarray((said * p**2 - 2 * came * p + came).sum(axis=0))


def reliability(*means: Real) -> Real:
    """Squared distance of the probabilities from the frequencies that followed; 0 is best."""
    said, came, p = _split(means)
    return np.asarray((np.nan_to_num(ratio((said * p - came) ** 2, said))).sum(axis=0))


def resolution(*means: Real) -> Real:
    """Squared distance of the frequencies, class by class, from that of all; more is better."""
    said, came, _ = _split(means)
    base = came.sum(axis=0)
    return np.asarray(np.nan_to_num(ratio((came - said * base) ** 2, said)).sum(axis=0))


def uncertainty(*means: Real) -> Real:
    """Variance of the outcome: the Brier score of its mean frequency."""
    base = _split(means)[1].sum(axis=0)
    return np.asarray(base * (1 - base))


PARTS = {
    "brier": brier,
    "brier_reliability": reliability,
    "brier_resolution": resolution,
    "brier_uncertainty": uncertainty,
}


def _columns(cases: pd.DataFrame) -> list[str]:
    """Columns of all classes that this model has; one with more members has more of them."""
    classes = [c for c in cases.columns if c.startswith(("said_", "came_"))]
    return [c for c in classes if cases[c].notna().any()] or classes[:4]


def _side_by_side(
    own: pd.DataFrame, other: pd.DataFrame, own_columns: list[str], other_columns: list[str]
) -> pd.DataFrame:
    """Cases that both have, the columns of each under its own names."""
    keys = ["init_time", *KEYS]
    left = own[keys + own_columns].rename(columns={c: f"own_{c}" for c in own_columns})
    right = other[keys + other_columns].rename(columns={c: f"other_{c}" for c in other_columns})
    return left.merge(right, on=keys)
