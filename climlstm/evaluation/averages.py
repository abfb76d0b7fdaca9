"""Averages over area and over initialisations: from fields to rows, and from rows to scores."""

import functools
from collections.abc import Callable, Mapping

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import NDArray

from climlstm.evaluation.bootstrap import Bootstrap, block_length, mean_over_cases

Real = NDArray[np.floating]

KEYS = ["variable", "lead_time", "region"]
"""What a score is told apart by, within one model."""


def area_mean(values: Real, weight: xr.DataArray) -> Real:
    """Means (L, R) over each region of fields (L, H, W); cells with NaN in the first are left out.

    Summed in float64. weight: (region, latitude, longitude). NaN for a region without any cell
    that is observed.
    """
    flat = values.reshape(len(values), -1).astype("float64", copy=False)
    shares = weight.values.reshape(len(weight), -1).T
    seen = ~np.isnan(flat[0])
    if not seen.all():
        flat, shares = flat[:, seen], shares[seen]
    return ratio(flat @ shares, shares.sum(axis=0))


def ratio(numerator: Real, denominator: Real) -> Real:
    """NaN where the denominator is not positive."""
    shape = np.broadcast_shapes(numerator.shape, denominator.shape)
    there = np.broadcast_to(denominator > 0, shape)
    return np.divide(numerator, denominator, out=np.full(shape, np.nan), where=there)


def case_table(
    forecast: xr.Dataset, weight: xr.DataArray, **columns: Mapping[str, Real]
) -> pd.DataFrame:
    """One row for each channel, lead time and region; columns map channels to values (L, R)."""
    channels = list(next(iter(columns.values())))
    leads, regions = forecast.lead_time.values, weight.region.values
    codes = np.indices((len(channels), len(leads), len(regions))).reshape(3, -1)
    values = {
        column: np.concatenate([*(by_channel[c].ravel() for c in channels), np.empty(0)])
        for column, by_channel in columns.items()
    }
    return pd.DataFrame(
        {
            "variable": pd.Categorical.from_codes(codes[0], dtype=_names(*channels)),
            "init_time": np.full(codes.shape[1], forecast.init_time.values),
            "lead_time": leads[codes[1]],
            "region": pd.Categorical.from_codes(codes[2], dtype=_names(*regions)),
            **values,
        }
    )


@functools.lru_cache
def _names(*names: str) -> pd.CategoricalDtype:
    """Names in this order; made once, since pandas is slow at it and each case needs them."""
    return pd.CategoricalDtype(names)


def summary(
    metric: str,
    scores: pd.DataFrame,
    *columns: str,
    bootstrap: Bootstrap,
    finish: Callable[..., Real] = np.asarray,
) -> pd.DataFrame:
    """Rows of the score table: finish(mean of each column), its interval, the number of cases."""
    cases = [_cases(scores, column) for column in columns]
    return _finish(metric, cases, bootstrap, finish)


def skill_score(
    metric: str,
    scores: pd.DataFrame,
    reference: pd.DataFrame,
    column: str,
    *,
    bootstrap: Bootstrap,
    finish: Callable[[Real], Real] = np.asarray,
) -> pd.DataFrame:
    """Rows with 1 - score / score of the reference; means and resamples are over the same cases."""
    cases = [_cases(scores, column), _cases(reference, column)]
    skill = _finish(
        f"{metric}_skill",
        cases,
        bootstrap,
        lambda own, other: 1 - ratio(finish(own), finish(other)),
    )
    return skill.assign(units="1")


def _cases(scores: pd.DataFrame, column: str) -> pd.DataFrame:
    """Initialisations in order of time × (variable, lead time, region); NaN where there is none."""
    return scores.pivot_table(
        index="init_time", columns=KEYS, values=column, observed=True, sort=True, dropna=True
    )


def _finish(
    metric: str, cases: list[pd.DataFrame], bootstrap: Bootstrap, finish: Callable[..., Real]
) -> pd.DataFrame:
    groups = cases[0].columns
    values = [case.reindex(index=cases[0].index, columns=groups).to_numpy() for case in cases]
    there = np.logical_and.reduce([np.isfinite(case) for case in values])
    values = [np.where(there, case, np.nan) for case in values]
    block = bootstrap.block or block_length(values[0], groups.get_level_values("lead_time").values)
    low, high = bootstrap.interval(values, finish, block=block)
    table = groups.to_frame(index=False).assign(
        metric=metric,
        value=finish(*(mean_over_cases(case) for case in values)),
        ci_low=low,
        ci_high=high,
        n=there.sum(axis=0),
    )
    table.attrs["block"] = block
    return table[table["value"].notna()]
