"""Scores that look at extremes without choosing the cases by what came.

To score only the cases in which an extreme came rewards those who always warn (the forecaster's
dilemma: Lerch et al. 2017, Statist. Sci. 32, 106-127). The threshold-weighted CRPS looks at all
cases and weighs what lies beyond a limit (Gneiting and Ranjan 2011, J. Bus. Econ. Stat. 29,
411-422); the quantile score, at one quantile of the forecast.
"""

from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
import pandas as pd
from pydantic import AfterValidator, Field

from climlstm.evaluation.bootstrap import Real
from climlstm.evaluation.events import Event, OfEvents
from climlstm.evaluation.scores import fair_crps
from climlstm.evaluation.statistic import AreaMean, GridError, skill


@dataclass(frozen=True)
class ThresholdCRPS(OfEvents):
    """CRPS of what lies beyond each limit: values are cut there before they are scored.

    Metrics are called `twcrps[t2m > 303 K]`, in the unit of the channel. With v(x) = max(x, limit)
    (or min), it is the fair CRPS of v(members) against v(truth) (Allen et al. 2023, SIAM/ASA J.
    Uncertain. Quantif. 11, 906-940).
    """

    metric = "twcrps"

    def means_of(
        self, event: Event, limit: float, mean: AreaMean, members: Real, observed: Real
    ) -> dict[str, Real]:
        """Area mean of the score of one event."""
        cut = np.maximum if event.above else np.minimum
        return {"mean": mean(fair_crps(cut(members, limit), cut(observed, limit)))}

    def summarise(self, scores: pd.DataFrame) -> pd.DataFrame:
        """The score of each event over all initialisations, with intervals."""
        groups = scores.groupby("event", sort=False)
        tables = [self.rows(f"twcrps[{name}]", [cases], self.finish) for name, cases in groups]
        return pd.concat(tables, ignore_index=True)

    def compare(self, scores: pd.DataFrame, reference: pd.DataFrame) -> pd.DataFrame:
        """Skill: 1 - score / score of the reference, over the same cases."""
        tables = []
        for name, cases in scores.groupby("event", sort=False):
            both = [cases, reference[reference["event"] == name]]
            tables.append(self.rows(f"twcrps_skill[{name}]", both, skill, units="1"))
        return pd.concat(tables, ignore_index=True)


def _are_levels(levels: tuple[float, ...]) -> tuple[float, ...]:
    if not levels or len(set(levels)) < len(levels):
        raise ValueError("give one level or more, each once")
    return levels


Levels = Annotated[tuple[Annotated[float, Field(gt=0, lt=1)], ...], AfterValidator(_are_levels)]


@dataclass(frozen=True)
class QuantileScore(GridError):
    """Quantile score (pinball loss) at each level: the mean of 2 (1[y < q] - level) (q - y).

    Metrics are called `quantile_0.9`; the mean over all levels is the CRPS. Quantiles of the
    ensemble are interpolated linearly between its members; a single forecast is its own quantile.
    """

    metric, of_members = "quantile", True

    levels: Levels = (0.1, 0.5, 0.9)

    @property
    def columns(self) -> tuple[str, ...]:  # type: ignore[override]
        """One for each level."""
        return tuple(f"quantile_{level:g}" for level in self.levels)

    def area_means(self, mean: AreaMean, *fields: Any, **_: Any) -> list[Real]:
        """Area means (L, R) of the score at each level."""
        members, truth = fields
        quantiles = np.quantile(members, self.levels, axis=0)
        return [
            mean(2 * ((truth < quantile) - level) * (quantile - truth))
            for level, quantile in zip(self.levels, quantiles, strict=True)
        ]

    def summarise(self, scores: pd.DataFrame) -> pd.DataFrame:
        """The score at each level over all initialisations, with intervals."""
        tables = [self.rows(c, [scores], self.finish, columns=[c]) for c in self.columns]
        return pd.concat(tables, ignore_index=True)

    def compare(self, scores: pd.DataFrame, reference: pd.DataFrame) -> pd.DataFrame:
        """Skill at each level: 1 - score / score of the reference, over the same cases."""
        tables = [
            self.rows(f"{c}_skill", [scores, reference], skill, columns=[c], units="1")
            for c in self.columns
        ]
        return pd.concat(tables, ignore_index=True)
