"""What a run file asks for, step by step: train, forecast, evaluate.

Each step finds what the one before it left: a checkpoint knows its run file, and a forecast knows
its checkpoint.
"""

import json
import logging
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Executor
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from climlstm import plugins
from climlstm.config import (
    Config,
    DataConfig,
    ForecastConfig,
    PluginChoice,
    chosen_evaluators,
    parse_config,
)
from climlstm.data.audit import Audit, audit, cannot_be_read, check_source
from climlstm.data.catalog import open_source, write_entry
from climlstm.data.climatology import climatology, period_of
from climlstm.data.cost import reading_cost
from climlstm.data.cube import CubePlan, plan_cube
from climlstm.data.findings import Finding
from climlstm.data.leaks import check_scoring
from climlstm.data.plan import plan_windows
from climlstm.data.prepare import Estimate, Progress, check_free, prepare, restrict
from climlstm.data.statistics import Statistics, compute_statistics
from climlstm.errors import (
    CheckpointError,
    ClimLSTMError,
    ConfigError,
    DataError,
    PluginError,
    missing_extra,
)
from climlstm.evaluation.evaluate import Evaluation, evaluate
from climlstm.exclusive import exclusive
from climlstm.forecasting import (
    Ensemble,
    Perturbations,
    Times,
    histories,
    possible_inits,
    write_forecasts,
)
from climlstm.model.forecaster import Spec
from climlstm.model.saving import load_forecaster, read_json
from climlstm.plugins import Evaluator, Plugin
from climlstm.training.checkpoint import best_checkpoint
from climlstm.training.loop import choose_precision, train
from climlstm.training.parallel import Workers
from climlstm.training.progress import Observe
from climlstm.training.storage import (
    RunStorage,
    best_location,
    fetch_checkpoint,
    opened_run,
)
from climlstm.training.task import open_windows, order_windows, statistics_folder

logger = logging.getLogger(__name__)

OF_ENSEMBLES = ("crps", "spread_skill", "rank_histogram")
"""Evaluators of ensembles."""
PERTURBATION = 0.1
"""Amplitude for networks without noise, where the run file names none."""


def train_run(
    config: Config,
    *,
    resume: bool = False,
    overwrite: bool = False,
    under_ray: bool = True,
    address: str | None = None,
    observe: Observe | None = None,
) -> Path | str:
    """Train, and return where the best checkpoint is: its folder or, in an object store, its URL.

    resume: go on from the latest checkpoint of the run, if there is one.
    overwrite: delete an earlier run of the same name first.
    under_ray: with the workers of the run file; otherwise in this process, or as torchrun has it.
    Raises ConfigError where the run has been trained before and neither is asked for.
    """
    with opened_run(config) as storage:
        storage.prove()
        with _kept_to_one(storage, config.name):
            if overwrite:
                storage.delete()
            kept = storage.names()
            if kept and not resume:
                raise ConfigError(
                    f"The run '{config.name}' has been trained before, up to "
                    f"{storage.location}/{kept[-1]}. Go on with --resume, start anew with "
                    "--overwrite, or give it another name."
                )
            if under_ray:
                from climlstm.training.on_ray import train_on_ray

                train_on_ray(config, address=address, observe=observe)
            else:
                train(config, resume_from=storage.latest(), observe=observe)
            return best_location(storage)


def _kept_to_one(storage: RunStorage, name: str) -> AbstractContextManager[None]:
    """Two processes in one run would delete each other's checkpoints. Of torchrun's, one asks."""
    if "://" in storage.location or int(os.environ.get("RANK", "0")) > 0:
        return nullcontext()
    return exclusive(storage.folder, f"The run '{name}' is being trained")


@dataclass(frozen=True)
class Trained:
    """A checkpoint and the run that made it."""

    checkpoint: Path
    config: Config
    provenance: dict[str, Any]


def find_trained(place: str | Path) -> Trained:
    """What lies in a folder: a checkpoint, or a run, of which the best checkpoint is taken.

    place: also a URL, of a run or a checkpoint in an object store.
    Raises CheckpointError where it is neither.
    """
    place = fetch_checkpoint(str(place)) if "://" in str(place) else Path(place)
    if not place.is_dir():
        raise CheckpointError(
            f"There is no folder {place}. Give the folder of a run or of a checkpoint."
        )
    checkpoint = place if (place / "forecaster.json").exists() else best_checkpoint(place)
    description = read_json(checkpoint / "forecaster.json")
    try:
        provenance = dict(description["provenance"])
        content = dict(provenance["config"])
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(
            f"{checkpoint}/forecaster.json does not say which run made it ({error!r}). "
            "Use another checkpoint."
        ) from error
    with plugins.read_from_a_file():
        try:
            _require_plugins(provenance)
        except PluginError as error:
            raise CheckpointError(f"{checkpoint} cannot be used here: {error}") from error
        config = parse_config(content, where=f"{checkpoint}/forecaster.json")
    return Trained(checkpoint, config, provenance)


def _require_plugins(provenance: Mapping[str, Any]) -> None:
    """Raises PluginError, naming all that are missing and how to install each, unless the plugins
    of a run are here. Other versions are told in the log."""
    try:
        recorded = [Plugin(**plugin) for plugin in provenance.get("plugins", ())]
        missing, changed = plugins.missing(recorded), plugins.changed(recorded)
    except (TypeError, AttributeError, ValueError, KeyError) as error:
        raise PluginError(f"its record of plugins is damaged ({error!r}).") from error
    if missing:
        raise PluginError("\n".join(["it was made with plugins that are not here.", *missing]))
    for message in changed:
        logger.warning("Not as it was made: %s", message)


def forecast_run(
    trained: Trained,
    out: Path,
    *,
    data: DataConfig | None = None,
    init_times: Times | None = None,
    steps: int | None = None,
    every: timedelta | None = None,
    members: int | None = None,
    seed: int | None = None,
    gpu: bool = False,
    address: str | None = None,
    progress: Callable[[int], None] | None = None,
) -> int:
    """Forecast into a new store `out`, and return how many initialisations there are.

    data: where initial states come from, if not from the data that it was trained on.
    init_times: by default the test period, `every` so often.
    steps, every, members, seed: by default as the run file has them.
    address: of a Ray cluster over which the initialisations are spread; None: this process.
    """
    import torch

    config = trained.config
    asked = {"members": members, "seed": seed}
    chosen = config.forecast.model_copy(update={k: v for k, v in asked.items() if v is not None})
    device = torch.device("cuda" if gpu else "cpu")
    forecaster, provenance = load_forecaster(trained.checkpoint)
    cube = open_cube(data or config.data)
    if init_times is None:
        init_times = possible_inits(
            cube,
            forecaster.spec,
            period=config.data.periods.bounds("test"),
            every=every or config.forecast.every,
        )
    digest = read_json(trained.checkpoint / "forecaster.json")["sha256"]
    with (
        exclusive(out, f"The forecast {out} is being written"),
        spread_over(address, gpu=gpu) as executor,
    ):
        wanted = config.training.precision
        if executor is None:
            precision = choose_precision(wanted, device)
        else:  # of a host that computes; this one may have no GPU
            precision = executor.submit(choose_precision, wanted, device).result()
        write_forecasts(
            out,
            load_forecaster(trained.checkpoint, precision=precision)[0],
            cube,
            init_times=init_times,
            steps=steps or config.forecast.steps,
            provenance=provenance | {"checkpoint": str(trained.checkpoint), "digest": digest},
            batch_size=config.forecast.batch_size,
            ensemble=_ensemble(config, forecaster.spec, chosen),
            progress=progress,
            executor=executor,
            device=str(device),
        )
    return len(init_times)


@contextmanager
def spread_over(address: str | None, *, gpu: bool = False) -> Iterator[Executor | None]:
    """An executor on a Ray cluster; none without an address."""
    if address is None:
        yield None
        return
    from climlstm.ray_tasks import tasks

    with tasks(address, gpu=gpu) as executor:
        yield executor


def _ensemble(config: Config, spec: Spec, wanted: ForecastConfig) -> Ensemble:
    """The ensemble of a forecast section; perturbations are drawn from the training period."""
    amplitude = wanted.perturbation
    if amplitude is None:
        amplitude = 0.0 if spec.noise else PERTURBATION
    if wanted.members == 1 or amplitude == 0:
        return Ensemble(wanted.members, wanted.seed)
    plan = plan_of(config.data)
    cube = plan.cube()
    times = possible_inits(
        cube,
        spec,
        period=config.data.periods.bounds("train"),
        every=config.data.step,
        unusable=_statistics(config, plan).unusable,
    )
    drawn = Perturbations(amplitude, times, partial(histories, spec, cube))
    return Ensemble(wanted.members, wanted.seed, drawn)


def evaluate_run(
    forecasts: xr.Dataset,
    *,
    data: DataConfig | None = None,
    evaluators: Sequence[PluginChoice | Evaluator] | None = None,
    regions: Sequence[str] | None = None,
    model: str | None = None,
    baselines: Sequence[str] = ("persistence", "climatology"),
    allow_seen: bool = False,
    address: str | None = None,
    progress: Callable[[float], None] | None = None,
    normal: xr.Dataset | None = None,
) -> Evaluation:
    """Score forecasts of a store beside persistence and the climatology of their training period.

    data: the truth, if not the data that the forecaster was trained on.
    evaluators, regions: by default as the run file has them, and for an ensemble its scores too;
        evaluators also as objects.
    model: what the forecasts are called; by default the name of their network.
    allow_seen: score also what the forecaster was trained or validated on.
    address: of a Ray cluster over which the initialisations are spread; None: this process.
    progress: is told the share of initialisations that have been scored.
    normal: a climatology, if not that of the training period; as `climatology` gives it.
    Raises DataError where scores would say nothing of skill (see `audit_scoring`), unless allowed.
    """
    config = config_of(forecasts)
    _refuse_seen(audit_scoring(forecasts, normal), allow=allow_seen)
    plan = plan_of(config.data)
    trained_on = plan.cube()
    statistics = _statistics(config, plan)
    observed = xr.Dataset(
        {
            name: (("latitude", "longitude"), mask)
            for name, mask in zip(statistics.channels, statistics.observed, strict=True)
        },
        {axis: trained_on[axis] for axis in ("latitude", "longitude")},
    )
    truth = open_cube(data) if data else trained_on
    if normal is None:
        normal = climatology(
            trained_on,
            config.data.periods.bounds("train"),
            channels=config.data.state,
            unusable=statistics.unusable,
            plan=plan,
            cache=_cache(config),
        )
    with spread_over(address) as executor:
        return evaluate(
            forecasts,
            truth,
            evaluators={
                choice.label: plugins.create("evaluators", choice.name, choice.options)
                for choice in chosen_evaluators(evaluators or evaluators_of(config, forecasts))
            },
            climatology=normal,
            regions=regions or config.evaluation.regions,
            observed=observed,
            unusable=statistics.unusable,
            baselines=baselines,
            model=model or config.model.name,
            progress=progress,
            executor=executor,
        )


def evaluators_of(config: Config, forecasts: xr.Dataset) -> list[PluginChoice]:
    """Those of the run file, and what there is to say of an ensemble."""
    chosen = list(config.evaluation.evaluators)
    if forecasts.sizes.get("realization", 1) > 1:
        named = {choice.name for choice in chosen}
        chosen += [PluginChoice(name=name) for name in OF_ENSEMBLES if name not in named]
    return chosen


def _statistics(config: Config, plan: CubePlan) -> Statistics:
    """Of what a run was trained on."""
    bounds = {name: config.data.periods.bounds(name) for name in ("train", "valid", "test")}
    return compute_statistics(
        plan.cube(),
        channels=config.data.state,
        train=bounds["train"],
        others=(bounds["valid"], bounds["test"]),
        plan=plan,
        cache=_cache(config),
    )


def _cache(config: Config) -> Path | None:
    """Where statistics are kept; None where it was trained on another machine."""
    return statistics_folder(config) if Path(config.cluster.storage).is_dir() else None


def audit_scoring(forecasts: xr.Dataset, normal: xr.Dataset | None = None) -> Audit:
    """What would make scores of forecasts worthless; its digest is that of the data trained on.

    normal: the climatology to compare with; by default that of the training period.
    """
    config = config_of(forecasts)
    provenance = json.loads(forecasts.attrs["climlstm_provenance"])
    taken_from = config.data.periods.bounds("train") if normal is None else period_of(normal)
    findings = check_scoring(
        provenance,
        forecasts["init_time"].values,
        forecasts["lead_time"].values,
        climatology=taken_from,
    )
    return Audit(tuple(findings), digest=provenance.get("audit", {}).get("digest"))


def _refuse_seen(found: Audit, *, allow: bool) -> None:
    if found.passed:
        return
    listed = "\n".join(f"- {finding}" for finding in found.errors)
    if not allow:
        raise DataError(
            f"These scores would say nothing of skill:\n{listed}\n"
            "Allow it with --allow-seen (allow_seen=True) if you want to see them nevertheless."
        )
    logger.warning("scored although it says nothing of skill:\n%s", listed)


def check_run(config: Config) -> Audit:
    """The audit of a run file and its source; a few steps are read, nothing is fitted."""
    from climlstm.training.task import count_parameters

    try:
        source = open_source(config.data.catalog, config.data.source, **config.data.parameters)
    except ClimLSTMError as error:
        return Audit((cannot_be_read(config, error),))
    try:
        plan = plan_cube(source, config.data)
        parameters = count_parameters(config, plan.cube())
        return audit(config, plan, parameters=parameters)
    except ClimLSTMError as error:
        return check_source(config, source, error)


def check_reading(config: Config) -> Finding:
    """What reading the training windows will cost; some of them are read, and a step is tried.

    Where the run asks for a GPU and this machine has none, the time of a step is left open.
    Raises a ClimLSTMError where source and run file do not fit.
    """
    import torch

    from climlstm.training.speed import seconds_per_batch

    plan = plan_of(config.data)
    cube, channels = plan.cube(), len(config.data.state)
    starts = plan_windows(
        cube["time"].values,
        period=config.data.periods.bounds("train"),
        history=config.model.history,
        horizon=config.training.horizon,
        step=np.timedelta64(config.data.step),
    )
    alone = Workers(0, 1, torch.device("cpu"))
    with open_windows(
        config, plan, alone, mean=np.zeros(channels), std=np.ones(channels)
    ) as stream:
        cost = reading_cost(stream, order_windows(config, starts, stream))
    here = torch.cuda.is_available() or not config.cluster.gpu
    seconds = seconds_per_batch(config, cube) if here else None
    return cost.finding(config.training.batch_size, seconds)


def plan_preparation(config: Config, out: Path) -> CubePlan:
    """What `prepare_run` will write: the cube of a run file, in the span of its periods.

    Raises a ClimLSTMError where source and run file do not fit, or `out` exists.
    """
    check_free(out)
    return restrict(plan_of(config.data), config.data)


def prepare_run(
    config: Config,
    plan: CubePlan,
    out: Path,
    *,
    expected: Estimate | None = None,
    scheduler: Any = "threads",
    progress: Progress | None = None,
) -> tuple[Path, tuple[str, ...]]:
    """Write the cube of a run in the layout that streams best, with a catalog beside it.

    plan: of `plan_preparation`; expected: what `estimate` of it gave.
    scheduler: as `prepare` takes it; its workers see `out` under the same name.
    Returns the catalog, and what `--set` takes for a run to train from the store.
    """
    with exclusive(out, f"The store {out} is being written"):
        prepare(
            plan, out, data=config.data, expected=expected, scheduler=scheduler, progress=progress
        )
    name = out.name.removesuffix(".zarr")
    catalog = out.with_name(f"{name}.catalog.yaml")
    write_entry(catalog, name, out, like=(config.data.catalog, config.data.source))
    changed = [f"data.catalog={catalog.resolve()}", f"data.source={name}"]
    if config.data.parameters:
        changed.append("data.parameters={}")
    if config.data.coarsen > 1:
        changed.append("data.coarsen=1")
    return catalog, tuple(changed)


@contextmanager
def scheduler_of(*, ray: str | None, dask: str | None) -> Iterator[Any]:
    """What `prepare_run` spreads its work by: this process, or a cluster.

    ray: address of a running Ray cluster; dask: of a dask.distributed scheduler ('HOST:PORT').
    Raises ConfigError where none answers, MissingExtraError without the library.
    """
    if ray is not None and dask is not None:
        raise ConfigError("There are a Ray cluster and a Dask cluster to prepare on; name one.")
    if ray is not None:
        from climlstm.ray_tasks import tasks

        with tasks(ray) as executor:
            yield executor
    elif dask is not None:
        with _dask_cluster(dask) as get:
            yield get
    else:
        yield "threads"


@contextmanager
def _dask_cluster(address: str) -> Iterator[Any]:
    try:
        from distributed import Client
    except ImportError as error:
        raise missing_extra("A dask.distributed cluster", "distributed", error) from error
    try:
        client = Client(address, timeout=10)
    except (OSError, TimeoutError, ValueError) as error:
        raise ConfigError(
            f"No scheduler of dask.distributed answers at '{address}': {error}. Start one with "
            "'dask scheduler', and workers with 'dask worker ADDRESS', or leave the option out."
        ) from error
    with client:
        yield client.get


def config_of(forecasts: xr.Dataset) -> Config:
    """The run whose checkpoint made these forecasts.

    Raises DataError where they were not made by climlstm.
    """
    try:
        provenance = json.loads(forecasts.attrs["climlstm_provenance"])
        _require_plugins(provenance)
        with plugins.read_from_a_file():
            return parse_config(provenance["config"], where="provenance of the forecasts")
    except PluginError as error:
        raise DataError(f"The forecasts cannot be scored here: {error}") from error
    except (KeyError, ValueError) as error:
        raise DataError(
            "The forecasts do not say which run made them (attribute climlstm_provenance): "
            f"{error}. Score those of other models with climlstm.evaluate."
        ) from error


def open_cube(data: DataConfig) -> xr.Dataset:
    """The cube that the data section of a run file describes, lazily."""
    return plan_of(data).cube()


def plan_of(data: DataConfig) -> CubePlan:
    """How that cube comes from its source."""
    return plan_cube(open_source(data.catalog, data.source, **data.parameters), data)


def other_data(data: DataConfig, *, catalog: str | None, source: str | None) -> DataConfig | None:
    """The same channels, region and step from another source, or None if none is named."""
    if catalog is None and source is None:
        return None
    return data.model_copy(
        update={"catalog": catalog or data.catalog, "source": source or data.source}
    )


def parse_times(texts: Sequence[str]) -> Times:
    """Times such as 2020-01-31T06 as datetime64, in order. Raises ConfigError for anything else."""
    try:
        times = pd.DatetimeIndex([pd.Timestamp(text) for text in texts])
    except ValueError as error:
        raise ConfigError(f"'{texts}': expected times such as 2020-01-31T06 ({error}).") from error
    return times.unique().sort_values().to_numpy("datetime64[ns]")
