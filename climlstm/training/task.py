"""What is learned, and from what: the cube, its statistics, and the windows in their order."""

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from climlstm import plugins
from climlstm.audit.audit import Audit, audit, bounds_of, check_task, what_was_seen
from climlstm.audit.leaks import check_lineage
from climlstm.config import Config, DataConfig, used_plugins
from climlstm.data.cube.cube import CubePlan, plan_cube
from climlstm.data.cube.forcing import forcing_channels
from climlstm.data.sources.catalog import open_source
from climlstm.data.statistics.climatology import climatology, climatology_at, period_of
from climlstm.data.statistics.statistics import Statistics, compute_statistics
from climlstm.data.store.memory import memory_budget
from climlstm.data.store.remote import Cache
from climlstm.data.windows.plan import (
    Starts,
    WindowPlan,
    choose_strips,
    evenly_spaced,
    in_order,
    plan_windows,
    share,
)
from climlstm.data.windows.stream import Window, WindowStream
from climlstm.environment import environment, versions
from climlstm.grid import cell_area_weights
from climlstm.model.forecaster import Forecaster, Spec
from climlstm.plugins.channels import channel
from climlstm.training.lineage import Parent
from climlstm.training.parallel import Workers

logger = logging.getLogger(__name__)

STATISTICS = ".statistics"
"""Folder beside the runs in which statistics and climatologies are kept, each under the digest of
its data."""


@dataclass(frozen=True, eq=False)
class Task:
    """Everything that one worker needs of the data."""

    config: Config
    workers: Workers
    cube: xr.Dataset
    statistics: Statistics
    plan: WindowPlan
    validation: Starts
    """Where the validation windows begin."""
    stream: WindowStream
    climatology: xr.Dataset
    """Of the training period, (hour, dayofyear, latitude, longitude)."""
    weight: Tensor
    """(C, H, W), mean 1: cell area where a channel is observed, zero elsewhere."""
    provenance: dict[str, Any] = field(default_factory=dict)
    """What a forecaster trained on it has seen, and with which versions: plain JSON."""
    parent: Parent | None = None

    def batches(self, epoch: int, first: int) -> Iterator[tuple[Window, float]]:
        """This worker's part of each batch from `first` on, and which share of the batch it is."""
        groups = self.plan.groups(epoch, first)
        mine = share(groups, rank=self.workers.rank, world=self.workers.world)
        for window in self.stream.windows(mine):
            yield window, len(window.init_time) / self.plan.batch_size

    def validation_windows(self) -> Iterator[tuple[Window, Tensor]]:
        """This worker's part, with the normalised climatology (B, L, C, H, W) of the targets."""
        mine = np.array_split(self.validation, self.workers.world)[self.workers.rank]
        size = max(1, self.config.training.batch_size // self.workers.world)
        for window in self.stream.windows(in_order(mine, batch_size=size)):
            yield window, self._climatology(window)

    @property
    def waited_seconds(self) -> float:
        """Time in which the loop waited for data."""
        return self.stream.waited_seconds

    def _climatology(self, window: Window) -> Tensor:
        horizon = self.config.training.horizon
        leads = np.arange(1, horizon + 1) * np.timedelta64(self.config.data.step)
        times = window.init_time[:, None] + leads
        fields = climatology_at(self.climatology, times.ravel()).to_dataarray("channel")
        values = fields.transpose("time", "channel", "latitude", "longitude").values
        mean, std = (a[:, None, None] for a in (self.statistics.mean, self.statistics.std))
        normalised = ((values - mean) / std).astype("float32")
        return torch.from_numpy(normalised.reshape(*times.shape, *values.shape[1:])).to(
            self.workers.device
        )


@contextmanager
def open_task(config: Config, workers: Workers, parent: Parent | None = None) -> Iterator[Task]:
    """Open the source, take its statistics over the training period, and plan the windows.

    parent: the forecaster to start from, whose normalisation is kept.
    Raises a ClimLSTMError where catalog, data and run file do not fit together, and DataError
    where the audit finds an error.
    """
    data, training = config.data, config.training
    cube_plan = plan_cube(open_source(data.catalog, data.source, **data.parameters), data)
    cube = cube_plan.cube()
    found = audit(config, cube_plan, parameters=count_parameters(config, cube))
    found.require(config.name)
    bounds = bounds_of(config)
    once: dict[str, Any] = {
        "plan": cube_plan,
        "cache": statistics_folder(config),
        "remote_cache": _remote_cache(data),
    }
    statistics = compute_statistics(
        cube,
        channels=data.state,
        train=bounds["train"],
        others=(bounds["valid"], bounds["test"]),
        **once,
    )
    places = partial(
        plan_windows,
        cube["time"].values,
        history=config.model.history,
        horizon=training.horizon,
        step=np.timedelta64(data.step),
        unusable=statistics.unusable,
    )
    starts = places(period=bounds["train"])
    validation = evenly_spaced(places(period=bounds["valid"]), training.validation_windows)
    reference = climatology(
        cube, bounds["train"], channels=data.state, unusable=statistics.unusable, **once
    )
    fitted = {"train": starts, "valid": validation}
    found = found.having(
        check_task(
            config,
            cube["time"].values,
            statistics=statistics,
            climatology=period_of(reference),
            **fitted,
        )
    )
    found.require(config.name)
    if parent is not None:
        parent.require_fit(describe(config, cube))
        found = found.having(check_lineage(parent.lineage, bounds))
        statistics = parent.normalise(statistics)
    if workers.is_first:
        _warn(found)
    stream = open_windows(
        config,
        cube_plan,
        workers,
        mean=statistics.mean,
        std=statistics.std,
        observed=statistics.observed,
    )
    plan = order_windows(config, starts, stream)
    with stream:
        yield Task(
            config=config,
            workers=workers,
            cube=cube,
            statistics=statistics,
            plan=plan,
            validation=validation,
            stream=stream,
            climatology=reference,
            weight=_weight(cube, statistics, training.balance),
            provenance={
                "config": config.model_dump(mode="json"),
                "data": data.model_dump(mode="json", exclude={"memory", "cache"})
                | {"statistics": statistics.digest},
                "order": plan.settings,
                "seen": what_was_seen(
                    cube["time"].values,
                    stream.length,
                    statistics=statistics.train,
                    climatology=period_of(reference),
                    **fitted,
                ),
                "audit": found.to_dict(),
                "versions": versions(),
                "environment": environment(),
                "plugins": [asdict(plugin) for plugin in used_plugins(config)],
            }
            | ({} if parent is None else {"lineage": parent.lineage}),
            parent=parent,
        )


def open_windows(
    config: Config, plan: CubePlan, workers: Workers, **normalisation: Any
) -> WindowStream:
    """The stream of a run's windows; normalisation: mean, std and observed, as WindowStream's."""
    data, batch_size = config.data, config.training.batch_size
    return WindowStream(
        plan.cube(),
        channels=data.state,
        history=config.model.history,
        horizon=config.training.horizon,
        forcing=data.forcing,
        plan=plan,
        memory=memory_budget(data.memory, part=_part(batch_size, workers.neighbours)),
        remote_cache=_remote_cache(data),
        device=workers.device,
        **normalisation,
    )


def order_windows(config: Config, starts: Starts, stream: WindowStream) -> WindowPlan:
    """The order of a run's training windows; it does not depend on the machine."""
    batch_size = config.training.batch_size
    block, mixed = choose_strips(
        starts.size,
        length=stream.length,
        batch_size=batch_size,
        step_bytes=stream.reader.step_bytes,
        chunk=stream.reader.chunk_steps,
        memory=config.data.memory,
    )
    return WindowPlan(
        starts, batch_size=batch_size, seed=config.training.seed, block=block, mixed=mixed
    )


def _remote_cache(data: DataConfig) -> Cache | None:
    return Cache(Path(data.cache.folder), data.cache.size) if data.cache else None


def statistics_folder(config: Config) -> Path:
    """Beside the runs; for runs in a bucket, in the user's cache on each machine."""
    if "://" not in config.cluster.storage:
        return Path(config.cluster.storage, STATISTICS)
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(home, "climlstm", "statistics")


def _part(batch_size: int, workers: int) -> float:
    """Of what workers of a machine share, the part of the one that takes most of each batch."""
    return -(-batch_size // workers) / batch_size


def _warn(found: Audit) -> None:
    for finding in found.findings:
        if finding.severity == "warning":
            logger.warning("%s", finding)


def build_forecaster(config: Config, task: Task, *, precision: torch.dtype) -> Forecaster:
    """An untrained forecaster for the data of a task."""
    statistics = task.statistics
    return Forecaster(
        describe(config, task.cube),
        mean=torch.from_numpy(statistics.mean),
        std=torch.from_numpy(statistics.std),
        tendency_std=torch.from_numpy(statistics.tendency_std),
        static=_static_fields(task.cube, config.data.static),
        missing=torch.from_numpy(~statistics.observed),
        precision=precision,
    )


def describe(config: Config, cube: xr.Dataset) -> Spec:
    """What a forecaster of this run on this cube is, in plain data."""
    data = config.data
    channels = [channel(name) for name in data.state]
    return Spec(
        channels=data.state,
        units=tuple(c.variable.units for c in channels),
        levels=tuple(c.level for c in channels),
        sign=tuple(-1 if c.variable.component else 1 for c in channels),
        forcing=forcing_channels(data.forcing),
        static=data.static,
        step=data.step,
        latitude=tuple(cube["latitude"].values.tolist()),
        longitude=tuple(cube["longitude"].values.tolist()),
        history=config.model.history,
        network=config.model.name,
        options=plugins.complete_options("models", config.model.name, config.model.options),
        noise=config.model.noise,
    )


def count_parameters(config: Config, cube: xr.Dataset) -> int:
    """Trained numbers of the network that a run asks for. The random generator is left alone."""
    spec = describe(config, cube)
    one = torch.ones(len(spec.channels))
    static = torch.zeros(len(spec.static), len(spec.latitude), len(spec.longitude))
    with torch.random.fork_rng(devices=[]):
        untrained = Forecaster(spec, mean=0 * one, std=one, tendency_std=one, static=static)
    return sum(parameter.numel() for parameter in untrained.parameters())


def _static_fields(cube: xr.Dataset, names: tuple[str, ...]) -> Tensor | None:
    """(S, H, W), each with mean 0 and standard deviation 1 over the grid, or None."""
    if not names:
        return None
    fields = np.stack([cube[name].values for name in names]).astype("float64")
    mean = fields.mean(axis=(1, 2), keepdims=True)
    spread = fields.std(axis=(1, 2), keepdims=True)
    return torch.from_numpy((fields - mean) / np.where(spread > 0, spread, 1)).float()


def _weight(cube: xr.Dataset, statistics: Statistics, balance: str) -> Tensor:
    """(C, H, W), mean 1: cell area where observed, times a factor for each channel.

    With the balance 'tendency' the squared error of a channel is divided by its standard
    deviation and by that of its tendency, instead of by the former squared.
    """
    area = cell_area_weights(cube["latitude"]).values[None, :, None]
    slowness = statistics.std / statistics.tendency_std if balance == "tendency" else 1.0
    factor = np.broadcast_to(slowness, len(statistics.channels))[:, None, None]
    weight = torch.from_numpy(area * statistics.observed * factor).float()
    return weight / weight.mean()
