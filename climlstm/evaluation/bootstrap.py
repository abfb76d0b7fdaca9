"""Confidence intervals from resampled cases: blocks of initialisations, or groups such as storms.

Scores of neighbouring initialisations resemble one another: they are forecasts of nearly the same
weather. Resampling them singly would make intervals too narrow, so blocks are drawn (Künsch 1989),
from a record closed to a circle, so that its ends count as much as its middle (Politis and
Romano 1992). Measured on 400 autoregressive series each, intervals of 95 % cover the mean in 94 to
96 % of series without autocorrelation, and with r = 0.3, 0.6, 0.8 in 88, 82, 67 % of series of 25
cases, 92, 91, 89 % of 120 and 91, 95, 92 % of 300: short records know little of themselves.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Annotated

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pydantic import Field, NonNegativeInt, PositiveInt
from scipy import stats

Real = NDArray[np.floating]
Ints = NDArray[np.int64]

FEWEST = 5
"""Blocks or groups without which there is no interval: resampling cannot know the spread."""

NUMBERS_AT_ONCE = 4_000_000
"""Numbers held together while quantiles are resampled, to bound memory."""


@dataclass(frozen=True)
class Resampling:
    """Options of all bootstraps, and the draws with replacement."""

    __pydantic_config__ = {"extra": "forbid"}  # noqa: RUF012 (read by pydantic, not a field)

    level: Annotated[float, Field(gt=0, lt=1)] = 0.95
    """Probability that an interval should cover."""
    resamples: PositiveInt = 1000
    seed: NonNegativeInt = 0

    def counts(self, number: int, block: int = 1) -> Real:
        """Number of times that each resample (rows) holds each case (columns)."""
        return _counts(number, block, self.resamples, self.seed).astype("float64")

    def bounds(self, samples: Real, tail: float | None = None) -> Real:
        """Percentiles (2, …) of samples along their first axis, a probability beyond each."""
        share = (1 - self.level) / 2 if tail is None else tail
        percent = [100 * share, 100 - 100 * share]
        if not np.isnan(samples).any():  # nanpercentile goes through the groups one by one
            return np.asarray(np.percentile(samples, percent, axis=0))
        return np.asarray(np.nanpercentile(samples, percent, axis=0))


@dataclass(frozen=True)
class GroupBootstrap(Resampling):
    """Intervals over whole groups: the values of one storm, say, stand or fall together."""

    def mean(self, values: pd.Series, groups: pd.Series) -> tuple[float, float, float]:
        """Mean of all values that are not NaN, and its interval; `groups` names their groups."""
        x, codes, number = _grouped(values, groups)
        if x.size == 0:
            return np.nan, np.nan, np.nan
        counts = self.counts(number)
        total = counts @ np.bincount(codes, minlength=number)
        sums = counts @ np.bincount(codes, weights=x, minlength=number)
        return float(x.mean()), *self._interval(sums / total, number)

    def quantile(
        self, values: pd.Series, groups: pd.Series, quantile: float
    ) -> tuple[float, float, float]:
        """Quantile of all values that are not NaN, and its interval."""
        x, codes, number = _grouped(values, groups)
        if x.size == 0:
            return np.nan, np.nan, np.nan
        order = np.argsort(x, kind="stable")
        samples = []
        parts = 1 + self.resamples * x.size // NUMBERS_AT_ONCE
        for counts in np.array_split(self.counts(number), parts):
            cumulated = np.cumsum(counts[:, codes[order]], axis=1)
            places = np.argmax(cumulated >= quantile * cumulated[:, -1:], axis=1)
            samples.append(x[order[places]])
        return float(np.quantile(x, quantile)), *self._interval(np.concatenate(samples), number)

    def _interval(self, samples: Real, number: int) -> tuple[float, float]:
        if number < FEWEST:
            return np.nan, np.nan
        low, high = self.bounds(samples)
        return float(low), float(high)


@dataclass(frozen=True)
class Bootstrap(Resampling):
    """Intervals of scores over initialisations, drawn in blocks."""

    block: PositiveInt | None = None
    """Initialisations in one block; None: chosen from the autocorrelation (`block_lengths`)."""

    def intervals(self, cases: list[Real], finish: Callable[..., Real]) -> tuple[Real, Real, Ints]:
        """Lower and upper bounds (G,) of scores, and the initialisations in a block of each.

        cases: as in `interval`, NaN in all arrays alike. The interval of a score depends on nothing
        but its own cases, whatever else is scored with it.
        """
        low, high = np.full((2, cases[0].shape[1]), np.nan)
        blocks = np.ones(low.size, dtype="int64")
        there, alike = np.unique(~np.isnan(cases[0]), axis=1, return_inverse=True)
        for number, rows in enumerate(there.T):
            groups = np.flatnonzero(alike == number)
            own = [case[np.ix_(rows, groups)] for case in cases]
            blocks[groups] = self.block or block_lengths(own[0])
            for block in np.unique(blocks[groups]):
                chosen = blocks[groups] == block
                low[groups[chosen]], high[groups[chosen]] = self.interval(
                    [case[:, chosen] for case in own], finish, block=int(block)
                )
        return low, high, blocks

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
        if number >= FEWEST * block:
            counts = self.counts(number, block)
            samples = finish(*(_means(counts, case) for case in cases))
            known = np.isfinite(samples).any(axis=0)
            bounds[:, known] = self.bounds(samples[:, known], self._tail(number / block))
        return bounds[0], bounds[1]

    def _tail(self, blocks: float) -> float:
        """Probability below the lower bound among resamples, which vary too little for few blocks.

        The expanded percentiles of Hesterberg (2015, Am. Stat. 69, 371-386, section 5.3).
        """
        student = stats.t.ppf((1 - self.level) / 2, blocks - 1)
        return float(stats.norm.cdf(np.sqrt(blocks / (blocks - 1)) * student))


@lru_cache(maxsize=16)
def _counts(number: int, block: int, resamples: int, seed: int) -> NDArray[np.uint16]:
    starts = np.random.default_rng(seed).integers(number, size=(resamples, -(-number // block)))
    drawn = (starts[:, :, None] + np.arange(block)).reshape(resamples, -1)[:, :number]
    drawn = np.where(drawn < number, drawn, drawn - number)  # round the circle; % is slow
    drawn += number * np.arange(resamples)[:, None]
    counts = np.bincount(drawn.ravel(), minlength=resamples * number)
    return counts.reshape(resamples, number).astype("uint16")


def _grouped(values: pd.Series, groups: pd.Series) -> tuple[Real, NDArray[np.intp], int]:
    """Values that are there, the number of the group of each, and how many groups there are."""
    known = values.notna()
    codes, unique = pd.factorize(groups[known], sort=True)  # whatever the order of rows
    return values[known].to_numpy(dtype="float64"), codes, len(unique)


def block_lengths(cases: Real) -> Ints:
    """Initialisations in a block (G,), for each group of scores (N, G) without NaN.

    From the lag-1 autocorrelation r by Wilks (1997, J. Climate 10, 65-82):
    L = (N - L + 1)^(2/3 (1 - N'/N)), with N'/N = (1 - r)/(1 + r).
    """
    anomalies = cases - mean_over_cases(cases)
    variance = (anomalies**2).sum(axis=0)
    covariance = (anomalies[1:] * anomalies[:-1]).sum(axis=0)
    r = np.divide(covariance, variance, out=np.zeros_like(variance), where=variance > 0).clip(0)
    exponent = 2 / 3 * (1 - (1 - r) / (1 + r))
    possible = np.arange(2, len(cases) + 1)[:, None]
    longer = possible <= (len(cases) - possible + 1.0) ** exponent
    return np.asarray(1 + np.logical_and.accumulate(longer).sum(axis=0))


def mean_over_cases(cases: Real) -> Real:
    """Means (G,) over those of the cases (N, G) that are there; NaN where none is."""
    return _means(np.ones((1, len(cases))), cases)[0]


def _means(counts: Real, cases: Real) -> Real:
    """Weighted means (…, G) over those cases that are there; NaN where none is."""
    there = ~np.isnan(cases)
    if there.all():
        return counts @ cases / counts.sum(axis=1, keepdims=True)
    total = counts @ there.astype("float64")
    sums = counts @ np.where(there, cases, 0.0)
    return np.divide(sums, total, out=np.full_like(sums, np.nan), where=total > 0)
