"""Confidence intervals of mean scores, from resampled blocks of initialisations.

Scores of neighbouring initialisations resemble one another: they are forecasts of nearly the same
weather. Resampling them singly would make intervals too narrow, so blocks are drawn (Künsch 1989),
from a record closed to a circle, so that its ends count as much as its middle (Politis and
Romano 1992). Measured on autoregressive series of 25 to 300 cases with r up to 0.8, intervals of
95 % cover the mean in 89 to 95 % of series; with single cases it would be 46 to 95 %.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, NonNegativeInt, PositiveInt
from scipy import stats

Real = NDArray[np.floating]

FEWEST_BLOCKS = 5
"""With fewer blocks than this, resampling says nothing of the spread: there is no interval."""


@dataclass(frozen=True)
class Bootstrap:
    """How confidence intervals are made."""

    __pydantic_config__ = {"extra": "forbid"}  # noqa: RUF012 (read by pydantic, not a field)

    level: Annotated[float, Field(gt=0, lt=1)] = 0.95
    """Probability that an interval should cover."""
    resamples: PositiveInt = 1000
    block: PositiveInt | None = None
    """Initialisations in one block; None: chosen from the autocorrelation (`block_length`)."""
    seed: NonNegativeInt = 0

    def interval(
        self, cases: list[Real], finish: Callable[..., Real], *, block: int
    ) -> tuple[Real, Real]:
        """Lower and upper bound (G,) of finish(means of the cases), by percentiles.

        cases: one or more arrays (N, G), drawn together, so that differences are paired:
        N initialisations in order of time, G groups; NaN where a case is missing.
        finish: the score from one mean (…, G) for each of them.
        """
        number, groups = cases[0].shape
        bounds = np.full((2, groups), np.nan)
        if number >= FEWEST_BLOCKS * block:
            counts = self._counts(number, block)
            samples = finish(*(_means(counts, case) for case in cases))
            known = np.isfinite(samples).any(axis=0)
            tail = 100 * self._tail(number / block)
            bounds[:, known] = np.nanpercentile(samples[:, known], [tail, 100 - tail], axis=0)
        return bounds[0], bounds[1]

    def _tail(self, blocks: float) -> float:
        """Probability below the lower bound among resamples, which vary too little for few blocks.

        The expanded percentiles of Hesterberg (2015, Am. Stat. 69, 371-386, section 5.3).
        """
        student = stats.t.ppf((1 - self.level) / 2, blocks - 1)
        return float(stats.norm.cdf(np.sqrt(blocks / (blocks - 1)) * student))

    def _counts(self, number: int, block: int) -> Real:
        """How often each resample (rows) holds each initialisation (columns)."""
        generator = np.random.default_rng(self.seed)
        starts = generator.integers(number, size=(self.resamples, -(-number // block)))
        drawn = (starts[:, :, None] + np.arange(block)).reshape(self.resamples, -1) % number
        drawn = drawn[:, :number] + number * np.arange(self.resamples)[:, None]
        counts = np.bincount(drawn.ravel(), minlength=self.resamples * number)
        return counts.reshape(self.resamples, number).astype("float64")


def block_length(cases: Real, leads: NDArray[np.timedelta64]) -> int:
    """Initialisations in a block, for scores (N, G) whose groups have the lead times (G,).

    From the lag-1 autocorrelation r at the lead time where it is greatest, by Wilks (1997,
    J. Climate 10, 65-82): L = (N - L + 1)^(2/3 (1 - N'/N)), with N'/N = (1 - r)/(1 + r).
    """
    number = len(cases)
    lag_one = _lag_one_autocorrelation(cases)
    r = max((np.nanmean(lag_one[leads == lead]) for lead in _with_value(leads, lag_one)), default=0)
    exponent = 2 / 3 * (1 - (1 - max(r, 0.0)) / (1 + max(r, 0.0)))
    length = 1
    while length + 1 <= (number - length) ** exponent:
        length += 1
    return length


def _with_value(leads: NDArray[np.timedelta64], values: Real) -> NDArray[np.timedelta64]:
    return np.unique(leads[np.isfinite(values)])


def _lag_one_autocorrelation(cases: Real) -> Real:
    anomalies = np.nan_to_num(cases - mean_over_cases(cases))
    variance = (anomalies**2).sum(axis=0)
    covariance = (anomalies[1:] * anomalies[:-1]).sum(axis=0)
    return np.divide(covariance, variance, out=np.full_like(variance, np.nan), where=variance > 0)


def mean_over_cases(cases: Real) -> Real:
    """Means (G,) over those of the cases (N, G) that are there; NaN where none is."""
    return _means(np.ones((1, len(cases))), cases)[0]


def _means(counts: Real, cases: Real) -> Real:
    """Weighted means (…, G) over those cases that are there; NaN where none is."""
    there = np.isfinite(cases)
    if there.all():
        return counts @ cases / counts.sum(axis=1, keepdims=True)
    total = counts @ there.astype("float64")
    sums = counts @ np.where(there, cases, 0.0)
    return np.divide(sums, total, out=np.full_like(sums, np.nan), where=total > 0)
