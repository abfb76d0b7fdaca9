"""The task of a run: audited data, and windows in the order in which they are learned."""

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
import xarray as xr
from numpy.typing import NDArray
from torch import Tensor

from climlstm.audit.audit import Audit, audit, check_task, what_was_seen
from climlstm.audit.extremes import check_statistics
from climlstm.audit.findings import Finding
from climlstm.audit.leaks import check_lineage
from climlstm.audit.outside import check_given
from climlstm.config import Config, used_plugins
from climlstm.data.normalised import extremes_in_units, normalised_climatology
from climlstm.data.roles import (
    channel_weights,
    given_channels,
    imposed_shares,
    mask_of,
    settings_of,
)
from climlstm.data.run_data import RunData
from climlstm.data.sources.regridding import processing
from climlstm.data.statistics.climatology import check_covered, climatology_at, period_of
from climlstm.data.statistics.statistics import Statistics
from climlstm.data.windows.plan import WindowPlan, in_order, share
from climlstm.data.windows.starts import Starts
from climlstm.data.windows.stream import Window, WindowStream
from climlstm.environment import recorded_environment, versions
from climlstm.errors import DataError
from climlstm.grid import grid_of
from climlstm.model.given import resolve, with_given
from climlstm.model.spec import Spec
from climlstm.training.lineage import Parent
from climlstm.training.parallel import Workers
from climlstm.training.untrained import count_parameters, describe, sketch_forecaster

logger = logging.getLogger(__name__)

ROLES = ("output", "prescribed", "boundary", "channels", "regions")
"""Keys of the data that are left out of its record where they are empty, so that it equals that of
checkpoints that were written before there were such keys."""


@dataclass(frozen=True, eq=False)
class Task:
    """Everything that one worker needs of the data."""

    data: RunData
    workers: Workers
    statistics: Statistics
    """Those of the data, but normalised like the forecaster that the run starts from, if any."""
    plan: WindowPlan
    stream: WindowStream
    weight: Tensor
    """(C, H, W), mean 1: cell area where a channel is observed, zero elsewhere."""
    provenance: dict[str, Any] = field(default_factory=dict)
    """Record of the data, seen periods, versions and plugins of a training: plain JSON."""
    parent: Parent | None = None

    def batches(self, epoch: int, first: int) -> Iterator[tuple[Window, float]]:
        """This worker's part of each batch from `first` on, and which share of the batch it is."""
        groups = self.plan.groups(epoch, first)
        mine = share(groups, rank=self.workers.rank, world=self.workers.world)
        for window in map(self._known, self.stream.windows(mine)):
            yield window, len(window.init_time) / self.plan.batch_size

    def validation_windows(self) -> Iterator[tuple[Window, Tensor]]:
        """This worker's part, with the normalised climatology (B, L, C, H, W) of the targets."""
        world = self.workers.world
        mine = np.array_split(self.data.valid_starts, world)[self.workers.rank]
        size = max(1, self.plan.batch_size // world)
        for window in map(self._known, self.stream.windows(in_order(mine, batch_size=size))):
            leads = np.arange(1, self.stream.horizon + 1)
            yield window, self._climatology(window, self.data.config.data.predicted, leads)

    @property
    def waited_seconds(self) -> float:
        """Time in which the loop waited for data."""
        return self.stream.waited_seconds

    def _known(self, window: Window) -> Window:
        """The window with what a forecast may know of channels from outside, behind its forcing."""
        if window.given is None:
            return window
        data = self.data.config.data
        given = given_channels(data, training=True)
        sources, known = [each.source for each in given], self.stream.history
        normal = None
        if {"persisted", "climatology"} & set(sources):
            leads = np.arange(1 - known, self.stream.horizon + 1)
            normal = self._climatology(window, [each.name for each in given], leads)
        resolved = resolve(window.given, sources, known=known, normal=normal)
        return replace(window, forcing=with_given(self._spec, window.forcing, resolved))

    @cached_property
    def _spec(self) -> Spec:
        return describe(self.data.config, self.data.cube)

    def _climatology(
        self, window: Window, channels: Sequence[str], leads: NDArray[np.int64]
    ) -> Tensor:
        """Normalised climatology (B, L, C, H, W) of some channels at lead steps."""
        times = self.data.config.data.step.time(leads, window.init_time[:, None])
        known = self.statistics.of(tuple(channels))
        normal = normalised_climatology(
            climatology_at(self.data.climatology, times.ravel()),
            settings_of(self.data.config.data),
            known,
        )
        return normal.unflatten(0, times.shape).to(self.workers.device)


@contextmanager
def open_task(config: Config, workers: Workers, parent: Parent | None = None) -> Iterator[Task]:
    """Open the source, take its statistics over the training period, and plan the windows.

    parent: the forecaster to start from, whose normalisation is kept.
    Raises a ClimLSTMError where catalog, data and run file do not fit together, and DataError
    where the audit finds an error.
    """
    data = RunData(config)
    found = audit_source(data)
    found.require(config.name)
    found = found.having(audit_fits(data, parent))
    found.require(config.name)
    if workers.is_first:
        for finding in found.findings:
            if finding.severity == "warning":
                logger.warning("%s", finding)
    statistics = parent.normalise(data.statistics) if parent else data.statistics
    with data.open_windows(
        statistics, device=workers.device, neighbours=workers.neighbours
    ) as stream:
        plan = data.order(data.train_starts, stream)
        yield Task(
            data=data,
            workers=workers,
            statistics=statistics,
            plan=plan,
            stream=stream,
            weight=_weight(config, data.cube, statistics),
            provenance=_provenance(data, statistics, plan, found, parent),
            parent=parent,
        )


def audit_source(data: RunData) -> Audit:
    """The audit of run file and source, before anything is fitted; a few steps are read.

    Raises a ClimLSTMError where they do not fit together.
    """
    sketched = sketch_forecaster(data.config, data.cube)
    found = audit(data.config, data.plan, parameters=count_parameters(sketched))
    reach = getattr(sketched.network, "reach", None)
    return found.having(check_given(data.config.data, reach=reach))


def check_hours(data: RunData, climatology: xr.Dataset, starts: Starts) -> None:
    """Raises DataError unless the climatology has the hours, or months, that windows forecast."""
    config, times = data.config, data.plan.times.values
    leads = np.arange(config.training.horizon) + config.model.history
    check_covered(climatology, times[np.unique(starts[:, None] + leads)])


def audit_fits(data: RunData, parent: Parent | None = None) -> list[Finding]:
    """The audit of all that is fitted and cut for a training: statistics, windows, climatology.

    The training period is read as a whole, unless that was done before.
    Raises a ClimLSTMError for data, or a parent, with which no training can start.
    """
    config, times = data.config, data.plan.times.values
    check_hours(data, data.climatology, data.valid_starts)
    findings = check_task(
        config,
        times,
        train=data.train_starts,
        valid=data.valid_starts,
        statistics=data.statistics,
        climatology=period_of(data.climatology),
    )
    plain = extremes_in_units(data.statistics, settings_of(config.data))
    findings += check_statistics(data.plan, plain)
    if parent is not None:
        parent.require_fit(describe(config, data.cube))
        findings += check_lineage(parent.lineage, data.periods)
    return findings


def _provenance(
    data: RunData, statistics: Statistics, plan: WindowPlan, found: Audit, parent: Parent | None
) -> dict[str, Any]:
    config = data.config
    chosen = config.data.model_dump(mode="json", exclude={"memory", "cache"})
    chosen = {key: value for key, value in chosen.items() if value or key not in ROLES}
    for channel in chosen.get("channels", {}).values():
        for key in ("over_step", "seen_at_start"):  # newer keys than their neighbours
            if not channel[key]:
                del channel[key]
    return {
        "config": config.model_dump(mode="json"),
        "data": chosen | {"statistics": statistics.digest} | processing(data.cube),
        "order": plan.settings,
        "seen": what_was_seen(
            data.plan.times.values,
            config.model.history + config.training.horizon,
            train=data.train_starts,
            valid=data.valid_starts,
            statistics=statistics.train,
            climatology=period_of(data.climatology),
        ),
        "audit": found.to_dict(),
        "versions": versions(),
        "environment": recorded_environment(),
        "plugins": [asdict(plugin) for plugin in used_plugins(config)],
    } | ({} if parent is None else {"lineage": parent.lineage})


def _weight(config: Config, cube: xr.Dataset, statistics: Statistics) -> Tensor:
    """(C, H, W), mean 1: cell area where observed and forecast, times a factor for each channel."""
    data = config.data
    area = grid_of(cube).area
    counts = statistics.of(data.predicted).observed
    imposed = imposed_shares(data, cube)
    if imposed is not None:
        counts = counts & ~(imposed > 0)
    if config.training.region is not None:
        counts = counts & mask_of(config.training.region, data, cube)
    found = channel_weights(config, statistics)
    factor = np.array([each.product for each in found])[:, None, None]
    weight = torch.from_numpy(area * counts * factor).float()
    if not (weight.sum(dim=(1, 2)) > 0).all():
        raise DataError(
            "A channel has no cell that counts in the loss: data.prescribed, data.boundary and "
            "training.region leave none that is observed. Widen the region, or narrow the masks."
        )
    return weight / weight.mean()
