"""Confidence intervals over storms: the points of one storm stand or fall together.

A storm is forecast many times, and its errors resemble one another; resampling single errors would
make intervals far too narrow. So whole storms are drawn.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from climlstm_storms.sphere import Real

FEWEST = 5
"""With fewer storms than this no interval is given: resampling cannot know the spread."""

BLOCK = 4_000_000
"""Numbers held at once, to bound memory."""


@dataclass(frozen=True)
class GroupBootstrap:
    """How intervals are made."""

    __pydantic_config__ = {"extra": "forbid"}  # noqa: RUF012

    level: float = 0.95
    """Probability that an interval should cover."""
    resamples: int = 1000
    seed: int = 0

    def mean(self, values: pd.Series, storms: pd.Series) -> tuple[float, float, float]:
        """Mean over all values, and its interval; storms tell which values belong together."""
        known = values.notna()
        x, codes, number = _arrays(values[known], storms[known])
        if x.size == 0:
            return np.nan, np.nan, np.nan
        weight = self._weights(number)
        total = weight @ np.bincount(codes, minlength=number)
        sums = weight @ np.bincount(codes, weights=x, minlength=number)
        return float(x.mean()), *self._interval(sums / total, number)

    def quantile(
        self, values: pd.Series, storms: pd.Series, quantile: float
    ) -> tuple[float, float, float]:
        """Quantile of all values, and its interval."""
        known = values.notna()
        x, codes, number = _arrays(values[known], storms[known])
        if x.size == 0:
            return np.nan, np.nan, np.nan
        order = np.argsort(x, kind="stable")
        samples = []
        for weight in np.array_split(self._weights(number), 1 + self.resamples * x.size // BLOCK):
            cumulated = np.cumsum(weight[:, codes[order]], axis=1)
            places = np.argmax(cumulated >= quantile * cumulated[:, -1:], axis=1)
            samples.append(x[order[places]])
        return float(np.quantile(x, quantile)), *self._interval(np.concatenate(samples), number)

    def _weights(self, number: int) -> Real:
        """How often each resample (rows) holds each storm (columns)."""
        return _weights(number, self.resamples, self.seed)

    def _interval(self, samples: Real, number: int) -> tuple[float, float]:
        if number < FEWEST:
            return np.nan, np.nan
        tail = (1 - self.level) / 2
        low, high = np.quantile(samples, [tail, 1 - tail])
        return float(low), float(high)


def _arrays(values: pd.Series, storms: pd.Series) -> tuple[Real, NDArray[np.intp], int]:
    codes, unique = pd.factorize(storms, sort=True)  # whatever the order of rows
    return values.to_numpy(dtype="float64"), codes, len(unique)


@lru_cache(maxsize=16)
def _weights(number: int, resamples: int, seed: int) -> Real:
    """Counts (resamples, number) of so many draws of numbers below it, with replacement."""
    drawn = np.random.default_rng(seed).integers(number, size=(resamples, number))
    drawn += number * np.arange(resamples)[:, None]
    counted = np.bincount(drawn.ravel(), minlength=resamples * number)
    counts = counted.reshape(resamples, number).astype("float64")
    counts.flags.writeable = False
    return counts
