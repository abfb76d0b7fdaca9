"""Forecasts against what came: every model, baselines too, through the same evaluators."""

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from climlstm import html
from climlstm.data.sources.units import conversion
from climlstm.errors import DataError, PluginError, nearest
from climlstm.evaluation.cases import Case, on_grid, orient, read_cases, scorable_inits
from climlstm.evaluation.regions import region_weights
from climlstm.plugins import NEEDS, Evaluator
from climlstm.plugins.channels import channel

logger = logging.getLogger(__name__)

BASELINES = ("persistence", "climatology")

SCORE_COLUMNS = [
    *("variable", "level", "lead_time", "region", "metric", "model"),
    *("value", "ci_low", "ci_high", "n", "units"),
]

INITS_OF_A_TASK = 16
"""Scored by one call of an executor: seconds of work, so that starting it does not count."""

Found = dict[tuple[str, pd.Timestamp], pd.DataFrame]
"""Tables by model and init_time."""


@dataclass(frozen=True)
class Evaluation:
    """What evaluators found, over all initialisations and one by one."""

    scores: pd.DataFrame
    """Of all evaluators that give scores, in `SCORE_COLUMNS`; lead_time is a timedelta64."""
    tables: dict[str, pd.DataFrame]
    """Summaries of the other evaluators, by their names: columns of their own, and `model`."""
    cases: dict[str, pd.DataFrame]
    """What each evaluator, by its name, gave for each `model` and `init_time`."""
    writers: dict[str, Callable[[Path], list[Path]]] = field(default_factory=dict)
    """Of evaluators that have files of their own: write them into a folder, and name them."""

    def _repr_html_(self) -> str:
        """The scores of whole days, metric by metric and region by region, for notebooks."""
        from climlstm.evaluation.tables import score_table

        pairs = self.scores[["metric", "region"]].drop_duplicates()
        tables: list[str] = []
        for metric, region in pairs.itertuples(index=False):
            heading, rows = score_table(self.scores, metric, region=region)
            drawn = html.table(heading, rows, numbers_from=1)
            tables.append(html.details(f"{metric}, {region}", drawn, opened=not tables))
        others = [f"{name}: {len(table)} rows in .tables" for name, table in self.tables.items()]
        return html.fragment(*tables, *map(html.quiet, others))


def evaluate(
    forecast: xr.Dataset,
    cube: xr.Dataset,
    *,
    evaluators: Mapping[str, Evaluator],
    climatology: xr.Dataset | None,
    regions: Sequence[str] = ("global",),
    baselines: Sequence[str] = BASELINES,
    observed: xr.Dataset | None = None,
    unusable: Iterable[np.datetime64] = (),
    model: str = "forecast",
    memory: int = 512 * 2**20,
    progress: Callable[[float], None] | None = None,
    executor: Executor | None = None,
) -> Evaluation:
    """Score forecasts, and baselines beside them, against a cube.

    forecast: (init_time, lead_time, latitude, longitude), an ensemble with realization, channels
        by their short names; each point of its grid must be one of the cube's.
    evaluators: by the names under which their results are kept.
    climatology: (hour, dayofyear, latitude, longitude), of the training period only; None if
        neither the baseline nor an evaluator needs it.
    baselines: `persistence`, which is the cube at init_time, and `climatology` at valid times.
    observed: by channel, where (latitude, longitude) values are ever observed; other cells are
        not scored. A NaN anywhere else is an error.
    unusable: times at which values of the cube are missing; they count as missing times.
    model: what the forecasts are called in the tables.
    memory: bytes of forecasts read together.
    progress: is told the share of initialisations that have been scored.
    executor: scores some initialisations with each call, on hosts that see forecasts and cube
        under the same names; None: this process.

    Pairs of init_time and lead_time without truth are left out for all models alike; n counts
    the initialisations that remain. Raises DataError for data that do not fit together.
    """
    forecast = orient(forecast)
    _check_request(forecast, climatology, evaluators, baselines, model)
    truth = _counterpart(forecast, cube, "cube")
    normal = None if climatology is None else _counterpart(forecast, climatology, "climatology")
    weight = region_weights(forecast.latitude, forecast.longitude, regions)
    unusable = tuple(unusable)
    score = partial(
        _score_cases,
        truth=truth,
        climatology=normal,
        observed=None if observed is None else _mask(observed, forecast),
        evaluators=evaluators,
        weight=weight,
        unusable=unusable,
        model=model,
        baselines=baselines,
        memory=memory,
    )
    if executor is None:
        found = score(forecast, progress=progress)
    else:
        groups = _groups(forecast, truth, unusable, persistence="persistence" in baselines)
        found = {name: {} for name in evaluators}
        for number, part in enumerate(executor.map(score, groups), start=1):
            found = {name: found[name] | part[name] for name in evaluators}
            if progress is not None:
                progress(number / len(groups))
    tables = {name: _labelled(tables) for name, tables in found.items()}
    units = {str(name): array.attrs["units"] for name, array in forecast.items()}
    return _summarise(evaluators, tables, [model, *baselines], units)


def _groups(
    forecast: xr.Dataset, truth: xr.Dataset, unusable: Iterable[np.datetime64], *, persistence: bool
) -> list[xr.Dataset]:
    """The forecasts that can be scored, some neighbours in time together: they share the truth."""
    scorable = forecast.isel(init_time=scorable_inits(forecast, truth, unusable, persistence))
    starts = range(0, scorable.sizes["init_time"], INITS_OF_A_TASK)
    return [scorable.isel(init_time=slice(s, s + INITS_OF_A_TASK)) for s in starts]


def _score_cases(
    forecast: xr.Dataset,
    *,
    truth: xr.Dataset,
    climatology: xr.Dataset | None,
    observed: xr.Dataset | None,
    evaluators: Mapping[str, Evaluator],
    weight: xr.DataArray,
    unusable: Iterable[np.datetime64],
    model: str,
    baselines: Sequence[str],
    memory: int,
    progress: Callable[[float], None] | None = None,
) -> dict[str, Found]:
    """What each evaluator says of forecasts and baselines, one initialisation after another."""
    found: dict[str, Found] = {name: {} for name in evaluators}
    for case in read_cases(
        forecast,
        truth,
        climatology,
        observed,
        unusable=unusable,
        model=model,
        baselines=baselines,
        memory=memory,
        past=any("past" in _needs(evaluator) for evaluator in evaluators.values()),
    ):
        for name, evaluator in evaluators.items():
            found[name] |= _score(evaluator, case, weight)
        if progress is not None:
            progress(case.share)
    return found


def _score(evaluator: Evaluator, case: Case, weight: xr.DataArray) -> Found:
    """What one evaluator says of one initialisation, model by model."""
    offered = {"weight": weight, "climatology": case.climatology, "past": case.past}
    wanted: dict[str, Any] = {need: offered[need] for need in _needs(evaluator)}
    init_time = pd.Timestamp(case.truth.init_time.values)
    return {
        (model, init_time): evaluator.score(forecast, case.truth, **wanted)
        for model, forecast in case.forecasts.items()
    }


def _labelled(found: Found) -> pd.DataFrame:
    """One table of all cases, with columns `model` and `init_time`."""
    table = pd.concat(found, names=["model", "init_time"])
    table = table.drop(columns=["model", "init_time"], errors="ignore")
    return table.reset_index(level=["model", "init_time"]).reset_index(drop=True)


def _summarise(
    evaluators: Mapping[str, Evaluator],
    cases: dict[str, pd.DataFrame],
    models: list[str],
    units: Mapping[str, str],
) -> Evaluation:
    """Model by model, and where an evaluator can compare, the forecast with each baseline."""
    forecast, *baselines = models
    scores, tables = [], {}
    writers: dict[str, Callable[[Path], list[Path]]] = {}
    for name, evaluator in evaluators.items():
        by_model = {m: cases[name][cases[name]["model"] == m] for m in models}
        by_model = {m: rows.drop(columns="model") for m, rows in by_model.items() if len(rows)}
        parts = [evaluator.summarise(rows).assign(model=m) for m, rows in by_model.items()]
        if hasattr(evaluator, "write") and forecast in by_model:
            writers[name] = partial(evaluator.write, by_model[forecast])
        if hasattr(evaluator, "compare") and forecast in by_model:
            for baseline in [b for b in baselines if b in by_model]:
                table = evaluator.compare(by_model[forecast], by_model[baseline])
                metric = table["metric"] + f"_vs_{baseline}"
                parts.append(table.assign(metric=metric, model=forecast))
        if all({"metric", "value"} <= set(part.columns) for part in parts):
            scores += parts
        else:
            tables[name] = pd.concat(parts, ignore_index=True)
    blocks = sorted({part.attrs["block"] for part in scores if "block" in part.attrs})
    if blocks:
        logger.info(
            "Confidence intervals: circular block bootstrap, blocks of %s initialisations.",
            f"{blocks[0]} to {blocks[-1]}" if len(blocks) > 1 else blocks[0],
        )
    return Evaluation(_score_table(scores, units), tables, cases, writers)


def _score_table(parts: list[pd.DataFrame], units: Mapping[str, str]) -> pd.DataFrame:
    """One table in `SCORE_COLUMNS`; columns that an evaluator does not know are filled in."""
    if not parts:
        return pd.DataFrame(columns=SCORE_COLUMNS)
    filled = {"region": "global", "ci_low": np.nan, "ci_high": np.nan, "n": pd.NA, "units": None}
    texts = {"variable": str, "region": str}
    whole = pd.concat(
        [
            part.assign(**{k: v for k, v in filled.items() if k not in part}).astype(texts)
            for part in parts
        ],
        ignore_index=True,
    )
    whole["units"] = whole["units"].fillna(whole["variable"].map(units))
    if "level" not in whole:
        split = {name: _variable_and_level(name) for name in whole["variable"].unique()}
        whole["level"] = whole["variable"].map({n: level for n, (_, level) in split.items()})
        whole["variable"] = whole["variable"].map({n: short for n, (short, _) in split.items()})
    numbers = dict.fromkeys(("value", "ci_low", "ci_high"), "float64")  # empty parts have none
    return whole.astype({"level": "Float64", "n": "Int64", **numbers})[SCORE_COLUMNS]


def _variable_and_level(name: str) -> tuple[str, float | None]:
    """`z500` as ('z', 500.0); a channel whose variable is not installed keeps its whole name."""
    try:
        known = channel(name)
    except PluginError:
        return name, None
    return known.variable.name, known.level


def _needs(evaluator: Evaluator) -> tuple[str, ...]:
    return getattr(evaluator, "needs", ())


def _check_request(
    forecast: xr.Dataset,
    climatology: xr.Dataset | None,
    evaluators: Mapping[str, Evaluator],
    baselines: Sequence[str],
    model: str,
) -> None:
    """What can be wrong with a request whatever the truth is."""
    for baseline in baselines:
        if baseline not in BASELINES:
            raise DataError(
                f"There is no baseline '{baseline}'.{nearest(baseline, BASELINES)} "
                f"Known: {', '.join(BASELINES)}."
            )
    if model in baselines:
        raise DataError(f"The forecasts cannot be called '{model}', which is a baseline.")
    if "scores" in evaluators:
        raise DataError("An evaluator cannot be called 'scores', like the table of all of them.")
    for name, evaluator in evaluators.items():
        missing = [channel for channel in evaluator.requires if channel not in forecast]
        if missing:
            raise DataError(
                f"The evaluator '{name}' needs {', '.join(missing)}, but the forecast has "
                f"{', '.join(map(str, forecast.data_vars))} only. Leave the evaluator out, or "
                "forecast what it needs."
            )
        unknown = set(_needs(evaluator)) - set(NEEDS)
        if unknown:
            raise PluginError(
                f"The evaluator '{name}' declares that it needs {', '.join(sorted(unknown))}; "
                f"climlstm can hand it {', '.join(NEEDS)}."
            )
    using = [f"evaluator '{n}'" for n, e in evaluators.items() if "climatology" in _needs(e)]
    using += ["the baseline 'climatology'"] * ("climatology" in baselines)
    if using and climatology is None:
        raise DataError(
            f"{' and '.join(using)} cannot do without a climatology. Make one of the training "
            "period with climlstm.data.statistics.climatology.climatology, or leave them out."
        )


def _counterpart(forecast: xr.Dataset, other: xr.Dataset, what: str) -> xr.Dataset:
    """The channels of the forecast from another dataset, in the same units, on the same grid."""
    for name, predicted in forecast.items():
        if name not in other:
            raise DataError(
                f"The forecast has '{name}', but the {what} has not."
                f"{nearest(str(name), map(str, other.data_vars))} "
                f"It has: {', '.join(map(str, other.data_vars))}."
            )
        found, wanted = (d.attrs.get("units") for d in (predicted, other[name]))
        if found is None or wanted is None:
            whose = "forecast" if found is None else what
            raise DataError(
                f"'{name}' of the {whose} has no units, so it cannot be compared. Set its "
                "attribute 'units'."
            )
        if not _same_units(found, wanted):
            raise DataError(
                f"'{name}' is in '{found}' in the forecast, but in '{wanted}' in the {what}. "
                "Convert the forecast before it is scored."
            )
    return on_grid(other[list(forecast.data_vars)], forecast, what)


def _mask(observed: xr.Dataset, forecast: xr.Dataset) -> xr.Dataset:
    missing = [str(name) for name in forecast.data_vars if name not in observed]
    if missing:
        raise DataError(
            f"The mask of observed cells has no {', '.join(missing)}. Give one for each channel."
        )
    return on_grid(observed[list(forecast.data_vars)], forecast, "mask of observed cells")


def _same_units(found: str, wanted: str) -> bool:
    """Also where they are spelled differently: 'm s**-1' and 'm/s'."""
    try:
        return conversion(found, wanted).is_identity
    except DataError:
        return False
