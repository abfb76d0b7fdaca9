"""Scores of forecasts, and of baselines beside them, through the same evaluators."""

import logging
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Executor
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import NDArray

from climlstm.calendars import Times
from climlstm.data.sources.units import conversion
from climlstm.errors import DataError, PluginError, nearest
from climlstm.evaluation.baselines import BASELINES
from climlstm.evaluation.cases import Reference, on_grid, orient, read_cases, scorable
from climlstm.evaluation.regions import region_weights
from climlstm.evaluation.statistic import scores_by_field
from climlstm.evaluation.tables import Draw, Evaluation, Write, infinite_scores, join_scores
from climlstm.grid.winds import to_earth
from climlstm.plugins import BASELINE_NEEDS, NEEDS, Baseline, Evaluator, create
from climlstm.plugins.running import running, shape_of, unexpected
from climlstm.steps import as_times, valid_times

logger = logging.getLogger(__name__)

INITS_OF_A_TASK = 16
"""Initialisations scored by one call of an executor: seconds of work, so that calls cost little."""

Tables = dict[tuple[str, Any], pd.DataFrame]
"""Tables of one evaluator by model and init_time."""


def evaluate(
    forecast: xr.Dataset,
    cube: xr.Dataset,
    *,
    evaluators: Mapping[str, Evaluator],
    climatology: xr.Dataset | None,
    regions: Sequence[str] = ("global",),
    places: Mapping[str, str] | None = None,
    baselines: Mapping[str, Baseline] | None = None,
    observed: xr.Dataset | None = None,
    unusable: Iterable[Any] = (),
    model: str = "forecast",
    memory: int = 512 * 2**20,
    progress: Callable[[float], None] | None = None,
    executor: Executor | None = None,
) -> Evaluation:
    """Score forecasts, and baselines beside them, against a cube.

    forecast: (init_time, lead_time, latitude, longitude), an ensemble with realization, channels
        by their short names; each point of its grid must be one of the cube's.
    climatology: (hour, dayofyear, latitude, longitude), or (month, …), of the training period
        only; None if neither the baseline nor an evaluator needs it.
    baselines: by their names in the tables, those that are fitted already fitted; None:
        `persistence`, which is the cube at init_time, and `climatology` at valid times.
    observed: by channel, where (latitude, longitude) values are ever observed; other cells are
        not scored. A NaN anywhere else is an error.
    unusable: times at which values of the cube are missing; they count as missing times.
    regions: in words, see `climlstm.grid.places`; places: those of the user's own, by name.
    evaluators, model: by their names in the tables.
    memory: bytes of forecasts read together. progress: gets the share of starts scored so far.
    executor: scores some initialisations with each call, on hosts that see forecasts and cube
        under the same names; None: this process.

    Pairs of init_time and lead_time without truth are left out for all models alike; n counts
    the initialisations that remain. Raises DataError for data that do not fit together.
    """
    forecast = orient(forecast)
    baselines = _usual_baselines() if baselines is None else baselines
    _check_request(forecast, climatology, evaluators, baselines, model)
    truth = _counterpart(forecast, cube, "cube")
    normal = None if climatology is None else _counterpart(forecast, climatology, "climatology")
    reference = Reference(
        truth=truth,
        climatology=normal,
        observed=None if observed is None else _mask(observed, forecast),
        usable=_usable(truth["time"].values, unusable),
        baselines=baselines,
        past=any("past" in _needs(evaluator) for evaluator in evaluators.values()),
    )
    weight = region_weights(forecast, regions, places, partial(_static_field, cube, forecast))
    found = _score_streaming(evaluators, forecast, truth, model)
    others = {name: each for name, each in evaluators.items() if name not in found}
    score = partial(_score_cases, reference, others, weight, model=model, memory=memory)
    if others and executor is None:
        found |= score(forecast, progress=progress)
    elif others and executor is not None:
        found |= _spread(score, _groups(forecast, reference), executor, progress)
    cases = {n: _labelled(found[n], n in others and _in_stacks(others)) for n in evaluators}
    units = {str(name): array.attrs["units"] for name, array in forecast.items()}
    return _summarise(evaluators, cases, [model, *baselines], units)


def _static_field(cube: xr.Dataset, forecast: xr.Dataset, name: str) -> NDArray[np.float32]:
    """A static field (H, W) of the cube on the grid of the forecast."""
    static = [str(each) for each, field in cube.items() if "time" not in field.dims]
    if name not in static:
        raise DataError(
            f"A region compares '{name}', but the cube has the static fields "
            f"{', '.join(static) or '(none)'}.{nearest(name, static)} Add it to data.static."
        )
    return np.asarray(on_grid(cube[[name]], forecast, "cube")[name].values)


def _usual_baselines() -> dict[str, Baseline]:
    return {name: create("baselines", name, {}) for name in BASELINES}


def _usable(times: Times, unusable: Iterable[Any]) -> Times:
    """Times in order, without those that are not usable."""
    refused = list(unusable)
    kept = times[~np.isin(times, as_times(refused))] if refused else times
    return np.sort(kept)


def _score_streaming(
    evaluators: Mapping[str, Evaluator], forecast: xr.Dataset, truth: xr.Dataset, model: str
) -> dict[str, Tables]:
    """Tables of those evaluators that read forecast and truth piece by piece."""
    streaming = {n: each for n, each in evaluators.items() if getattr(each, "streams", False)}
    tables: dict[str, Tables] = {name: {} for name in streaming}
    for init in forecast["init_time"].values:
        one = forecast.sel(init_time=init)
        times = valid_times(np.array([init]), one["lead_time"].values)[0]
        one = one.assign_coords(valid_time=("lead_time", times))
        start = pd.Timestamp(init) if isinstance(init, np.datetime64) else init
        for name, evaluator in streaming.items():
            tables[name][model, start] = evaluator.score(one, truth)
    return tables


def _spread(
    score: Callable[[xr.Dataset], dict[str, Tables]],
    groups: list[xr.Dataset],
    executor: Executor,
    progress: Callable[[float], None] | None,
) -> dict[str, Tables]:
    """The tables of all groups, scored by an executor."""
    found: dict[str, Tables] = defaultdict(dict)
    for number, part in enumerate(executor.map(score, groups), start=1):
        for name, tables in part.items():
            found[name] |= tables
        if progress is not None:
            progress(number / len(groups))
    return found


def _groups(forecast: xr.Dataset, reference: Reference) -> list[xr.Dataset]:
    """The forecasts that can be scored, some neighbours in time together: they share the truth."""
    kept = forecast.isel(init_time=scorable(forecast, reference).any(axis=1))
    starts = range(0, kept.sizes["init_time"], INITS_OF_A_TASK)
    return [kept.isel(init_time=slice(s, s + INITS_OF_A_TASK)) for s in starts]


def _in_stacks(evaluators: Mapping[str, Evaluator]) -> bool:
    """Whether all evaluators may get several initialisations at once."""
    return all(map(scores_by_field, evaluators.values()))


def _score_cases(
    reference: Reference,
    evaluators: Mapping[str, Evaluator],
    weight: xr.DataArray,
    forecast: xr.Dataset,
    *,
    model: str,
    memory: int,
    progress: Callable[[float], None] | None = None,
) -> dict[str, Tables]:
    """Tables of each evaluator for forecasts and baselines, one initialisation after another."""
    found: dict[str, Tables] = {name: {} for name in evaluators}
    stacked = _in_stacks(evaluators)
    for case in read_cases(forecast, reference, model=model, memory=memory, stacked=stacked):
        offered = {"weight": weight, "climatology": case.climatology, "past": case.past}
        start = case.truth.init_time.values.ravel()[0]
        init_time = pd.Timestamp(start) if isinstance(start, np.datetime64) else start
        for name, evaluator in evaluators.items():
            wanted: dict[str, Any] = {need: offered[need] for need in _needs(evaluator)}
            for label, fields in case.forecasts.items():
                with running("evaluators", name, evaluator, f"at {init_time}, of {label}"):
                    table = evaluator.score(fields, case.truth, **wanted)
                found[name][label, init_time] = _a_table(name, evaluator, table)
        if progress is not None:
            progress(case.share)
    return found


def _a_table(name: str, evaluator: Evaluator, found: Any) -> pd.DataFrame:
    """The table that an evaluator gave. Raises PluginError, with its name, where it is none."""
    if not isinstance(found, pd.DataFrame):
        raise unexpected(
            "evaluators", name, evaluator, came=shape_of(found), expected="a pandas.DataFrame"
        )
    return found


def _labelled(tables: Tables, stacked: bool) -> pd.DataFrame:
    """One table of all cases, with columns `model` and `init_time`.

    stacked: tables are of several initialisations, and have that column already. How many are
        together depends on memory and tasks, which the order of rows must not show.
    """
    if stacked:
        parts = [table.assign(model=model) for (model, _), table in tables.items() if len(table)]
        if not parts:
            return pd.DataFrame({"model": [], "init_time": []})
        return pd.concat(parts).sort_values("init_time", kind="stable", ignore_index=True)
    table = pd.concat(tables, names=["model", "init_time"])
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
    writers: dict[str, Write] = {}
    figures: dict[str, Draw] = {}
    for name, evaluator in evaluators.items():
        by_model = {m: cases[name][cases[name]["model"] == m] for m in models}
        by_model = {m: rows.drop(columns="model") for m, rows in by_model.items() if len(rows)}
        if forecast not in by_model:
            logger.warning("The evaluator '%s' has nothing to say of '%s'.", name, forecast)
        with running("evaluators", name, evaluator, "in summarise()"):
            sums = {m: evaluator.summarise(rows) for m, rows in by_model.items()}
        parts = [_a_table(name, evaluator, table).assign(model=m) for m, table in sums.items()]
        if hasattr(evaluator, "write") and forecast in by_model:
            writers[name] = partial(evaluator.write, by_model[forecast])
        if hasattr(evaluator, "figures") and forecast in by_model:
            figures[name] = partial(evaluator.figures, cases[name])
        if hasattr(evaluator, "compare") and forecast in by_model:
            for baseline in [b for b in baselines if b in by_model]:
                with running("evaluators", name, evaluator, "in compare()"):
                    table = evaluator.compare(by_model[forecast], by_model[baseline])
                metric = table["metric"] + f"_vs_{baseline}"
                parts.append(table.assign(metric=metric, model=forecast))
        if all({"metric", "value"} <= set(part.columns) for part in parts):
            scores += parts
        else:
            tables[name] = pd.concat(parts, ignore_index=True)
    blocks = sorted({length for part in scores for length in part.attrs.get("blocks", ())})
    if blocks:
        logger.info(
            "Confidence intervals: circular block bootstrap, blocks of %d to %d initialisations.",
            blocks[0],
            blocks[-1],
        )
    joined = join_scores(scores, units)
    if named := infinite_scores(joined):
        logger.warning("%s. Forecast or truth hold values that cannot be there.", named)
    return Evaluation(joined, tables, cases, writers, figures)


def _needs(plugin: Evaluator | Baseline) -> tuple[str, ...]:
    return getattr(plugin, "needs", ())


def _check_request(
    forecast: xr.Dataset,
    climatology: xr.Dataset | None,
    evaluators: Mapping[str, Evaluator],
    baselines: Mapping[str, Baseline],
    model: str,
) -> None:
    """Raises DataError or PluginError for what is wrong with a request whatever the truth is."""
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
    using = []
    for kind, plugins, known in (
        ("evaluator", evaluators, NEEDS),
        ("baseline", baselines, BASELINE_NEEDS),
    ):
        for name, plugin in plugins.items():
            needs = _needs(plugin)
            if not set(needs) <= set(known):
                raise PluginError(
                    f"The {kind} '{name}' declares that it needs "
                    f"{', '.join(sorted(set(needs) - set(known)))}; climlstm can hand it "
                    f"{', '.join(known)}."
                )
            if "climatology" in needs or "past_climatology" in needs:
                using.append(f"the {kind} '{name}'")
    if using and climatology is None:
        raise DataError(
            f"{' and '.join(using)} cannot do without a climatology. Make one of the training "
            "period with climlstm.data.statistics.climatology.climatology, or leave them out."
        )


def _counterpart(forecast: xr.Dataset, other: xr.Dataset, what: str) -> xr.Dataset:
    """The channels of the forecast from another dataset, in the same units, on the same grid, with
    winds towards east and north as forecasts have them."""
    other = to_earth(other)
    for name, predicted in forecast.items():
        if name not in other:
            raise DataError(
                f"The forecast has '{name}', but the {what} has not."
                f"{nearest(str(name), map(str, other.data_vars))} "
                f"It has: {', '.join(map(str, other.data_vars))}."
            )
        found, wanted = (d.attrs.get("units") for d in (predicted, other[name]))
        if found is None or wanted is None:
            raise DataError(
                f"'{name}' of the {'forecast' if found is None else what} has no units, so it "
                "cannot be compared. Set its attribute 'units'."
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
    """Whether two units are one, perhaps in other spellings: 'm s**-1' and 'm/s'."""
    try:
        return conversion(found, wanted).is_identity
    except DataError:
        return False
