"""Scores of yes and no: does it rain more than a threshold, here and then?

Hits, misses, false alarms and correct negatives are summed over all forecasts before anything is
divided, so that dry frames, where a ratio does not exist, do no harm. Definitions: Wilks,
Statistical Methods in the Atmospheric Sciences (2011), ch. 8.2.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pydantic import AfterValidator

from climlstm.evaluation.bootstrap import Real
from climlstm.evaluation.statistic import AreaMean, GridScore, ratio

Flags = NDArray[np.bool_]

COUNTS = ("hits", "misses", "false_alarms", "negatives")


def distinct(numbers: tuple[float, ...]) -> tuple[float, ...]:
    if not numbers or len(set(numbers)) < len(numbers):
        raise ValueError("give one number or more, each once")
    return numbers


Thresholds = Annotated[tuple[float, ...], AfterValidator(distinct)]


def csi(hits: Real, misses: Real, false_alarms: Real, negatives: Real) -> Real:
    """Critical success index: hits / (hits + misses + false alarms)."""
    return ratio(hits, hits + misses + false_alarms)


def pod(hits: Real, misses: Real, false_alarms: Real, negatives: Real) -> Real:
    """Probability of detection: hits / (hits + misses)."""
    return ratio(hits, hits + misses)


def far(hits: Real, misses: Real, false_alarms: Real, negatives: Real) -> Real:
    """False alarm ratio: false alarms / (hits + false alarms)."""
    return ratio(false_alarms, hits + false_alarms)


def frequency_bias(hits: Real, misses: Real, false_alarms: Real, negatives: Real) -> Real:
    """Events forecast over events that came: (hits + false alarms) / (hits + misses)."""
    return ratio(hits + false_alarms, hits + misses)


def hss(hits: Real, misses: Real, false_alarms: Real, negatives: Real) -> Real:
    """Heidke skill score: the share of right answers, 0 by chance and 1 at best."""
    product = hits * negatives - misses * false_alarms
    one = (hits + misses) * (misses + negatives)
    other = (hits + false_alarms) * (false_alarms + negatives)
    return ratio(2 * product, one + other)


def ets(hits: Real, misses: Real, false_alarms: Real, negatives: Real) -> Real:
    """Equitable threat score: the CSI without the hits that chance would bring."""
    total = hits + misses + false_alarms + negatives
    chance = ratio((hits + misses) * (hits + false_alarms), total)
    return ratio(hits - chance, hits + misses + false_alarms - chance)


SCORES = {
    "csi": csi, "pod": pod, "far": far, "frequency_bias": frequency_bias, "hss": hss, "ets": ets
}  # fmt: skip


def exceeding(
    thresholds: Sequence[float], forecast: Real, truth: Real
) -> Iterator[tuple[float, Flags, Flags, Flags]]:
    """Each threshold, where forecast and truth reach it, and where both are known."""
    known = np.isfinite(forecast) & np.isfinite(truth)
    for limit in thresholds:
        yield limit, known & (forecast >= limit), known & (truth >= limit), known


@dataclass(frozen=True)
class Categorical(GridScore):
    """CSI, POD, FAR, frequency bias, HSS and ETS of exceeding each threshold.

    Metrics are called `csi_0.5`, and so on: score and threshold, in the unit of the variable.
    Cells weigh by their area; those that are missing in forecast or truth are left out. Of an
    ensemble, its mean is scored.
    """

    metric, units = "categorical", "1"

    thresholds: Thresholds = (0.5, 2.0, 5.0)
    """Events are values of at least so much, in the unit of the variable."""

    @property
    def columns(self) -> tuple[str, ...]:  # type: ignore[override]
        """One for each count and threshold."""
        return tuple(f"{count}_{limit:g}" for limit in self.thresholds for count in COUNTS)

    def area_means(self, mean: AreaMean, *fields: Any, **_: Any) -> Sequence[Real]:
        """Shares of the area that are hits, misses, ...; each (L, R), threshold by threshold."""
        found = []
        for _, said, came, known in exceeding(self.thresholds, *fields):
            found += [said & came, ~said & came, said & ~came, known & ~said & ~came]
        return [mean(each.astype("float64")) for each in found]

    def summarise(self, scores: pd.DataFrame) -> pd.DataFrame:
        """All scores at all thresholds, with intervals over initialisations."""
        tables = []
        for limit in self.thresholds:
            columns = [f"{count}_{limit:g}" for count in COUNTS]
            tables += [
                self.rows(f"{name}_{limit:g}", [scores], finish, columns=columns)
                for name, finish in SCORES.items()
            ]
        return pd.concat(tables, ignore_index=True)
