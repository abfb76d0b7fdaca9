"""The task of a run: audited data, and windows in the order in which they are learned."""

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from climlstm.audit.audit import Audit, audit, check_task, further, what_was_seen
from climlstm.audit.extremes import check_statistics
from climlstm.audit.findings import Finding
from climlstm.audit.leaks import check_further, check_lineage
from climlstm.audit.outside import check_given
from climlstm.config import Config, used_plugins
from climlstm.data.normalised import extremes_in_units
from climlstm.data.roles import (
    channel_weights,
    imposed_shares,
    mask_of,
    settings_of,
)
from climlstm.data.run_data import RunData
from climlstm.data.sources.regridding import processing
from climlstm.data.statistics.climatology import check_covered, period_of
from climlstm.data.windows.plan import WindowPlan, in_order
from climlstm.data.windows.starts import Starts
from climlstm.data.windows.stream import Window
from climlstm.environment import recorded_environment, versions
from climlstm.errors import DataError
from climlstm.grid import grid_of
from climlstm.training.lineage import Parent
from climlstm.training.mixing import Source, mixed_batches, observed_in_all, open_sources
from climlstm.training.parallel import Workers
from climlstm.training.untrained import count_parameters, describe, sketch_forecaster

logger = logging.getLogger(__name__)

ROLES = ("output", "prescribed", "boundary", "channels", "regions", "also")
"""Keys of the data that are left out of its record where they are empty, so that it equals that of
checkpoints that were written before there were such keys."""


@dataclass(frozen=True, eq=False)
class Task:
    """Everything that one worker needs of the data."""

    workers: Workers
    sources: tuple[Source, ...]
    """The run's own, and further ones to train on. The statistics of the first are those of the
    data, but normalised like the forecaster that the run starts from, if any."""
    weight: Tensor
    """(C, H, W), mean 1: cell area where a channel is observed, zero elsewhere."""
    provenance: dict[str, Any] = field(default_factory=dict)
    """Record of the data, seen periods, versions and plugins of a training: plain JSON."""
    parent: Parent | None = None

    @property
    def data(self) -> RunData:
        """Data of the run's own source."""
        return self.sources[0].data

    @property
    def plan(self) -> WindowPlan:
        """Order of the windows of the run's own source."""
        return self.sources[0].plan

    @property
    def batches_per_epoch(self) -> int:
        """Number of batches of all sources, the same in every epoch."""
        return sum(source.plan.batches_per_epoch for source in self.sources)

    def batches(self, epoch: int, first: int) -> Iterator[tuple[Window, float]]:
        """This worker's part of each batch from `first` on, and which share of the batch it is."""
        for window in mixed_batches(self.sources, epoch, first, self.workers):
            yield window, len(window.init_time) / self.plan.batch_size

    def validation_windows(self) -> Iterator[tuple[Window, Tensor]]:
        """This worker's part, with the normalised climatology (B, L, C, H, W) of the targets."""
        world, source = self.workers.world, self.sources[0]
        mine = np.array_split(self.data.valid_starts, world)[self.workers.rank]
        size = max(1, self.plan.batch_size // world)
        for window in source.windows(in_order(mine, batch_size=size)):
            leads = np.arange(1, source.stream.horizon + 1)
            yield window, source.climatology(window, self.data.config.data.predicted, leads)

    @property
    def waited_seconds(self) -> float:
        """Time in which the loop waited for data."""
        return sum(source.stream.waited_seconds for source in self.sources)

    def give_up_if(self, asked: Callable[[], bool]) -> None:
        """End the batches once this is true while data are waited for."""
        for source in self.sources:
            source.stream.give_up = asked


@contextmanager
def open_task(config: Config, workers: Workers, parent: Parent | None = None) -> Iterator[Task]:
    """Open the source, take its statistics over the training period, and plan the windows.

    parent: the forecaster to start from, whose normalisation is kept unless `normalise` is `own`.
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
    kept = parent is not None and config.training.normalise == "parent"
    statistics = parent.normalise(data.statistics) if parent and kept else data.statistics
    with open_sources(data, statistics, workers) as sources:
        yield Task(
            workers=workers,
            sources=sources,
            weight=_weight(config, sources),
            provenance=_provenance(sources, found, parent),
            parent=parent,
        )


def audit_source(data: RunData) -> Audit:
    """The audit of run file and source, before anything is fitted; a few steps are read.

    Raises a ClimLSTMError where they do not fit together.
    """
    sketched = sketch_forecaster(data.config, data.cube)
    found = audit(data.config, data.plan, parameters=count_parameters(sketched))
    reach = getattr(sketched.network, "reach", None)
    found = found.having(check_given(data.config.data, reach=reach))
    for each in data.further:
        found = found.having(further(each.config.data.source, audit(each.config, each.plan)))
        found = found.having(check_further(each.config.data, data.periods, free=each.free_running))
    return found


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
    for each in data.further:
        when, starts = each.plan.times.values, each.train_starts
        findings += check_task(each.config, when, train=starts, statistics=each.statistics)
    for each in (data, *data.further):
        plain = extremes_in_units(each.statistics, settings_of(config.data))
        findings += check_statistics(each.plan, plain)
    if parent is not None:
        parent.require_fit(describe(config, data.cube))
        findings += check_lineage(parent.lineage, data.periods)
    return findings


def _provenance(sources: Sequence[Source], found: Audit, parent: Parent | None) -> dict[str, Any]:
    first, *others = sources
    data, statistics = first.data, first.statistics
    config = data.config
    chosen = config.data.model_dump(mode="json", exclude={"memory", "cache"})
    chosen = {key: value for key, value in chosen.items() if value or key not in ROLES}
    for channel in chosen.get("channels", {}).values():
        for key in ("over_step", "seen_at_start"):  # newer keys than their neighbours
            if not channel[key]:
                del channel[key]
    if data.free_running:
        chosen["free_running"] = True
    for entry, other in zip(chosen.get("also", []), others, strict=True):
        known = other.statistics
        scales = np.stack([known.mean, known.std], axis=1).tolist()
        entry["normalised"] = dict(zip(known.channels, scales, strict=True))
    world = [each.data for each in others if not each.data.free_running]
    order = {"also": [other.plan.settings for other in others]} if others else {}
    return {
        "config": config.model_dump(mode="json"),
        "data": chosen | {"statistics": statistics.digest} | processing(data.cube),
        "order": first.plan.settings | order,
        "seen": what_was_seen(
            data.plan.times.values,
            config.model.history + config.training.horizon,
            train=data.train_starts,
            valid=data.valid_starts,
            statistics=statistics.train,
            climatology=period_of(data.climatology),
            also=[(each.plan.times.values, each.train_starts) for each in world],
        ),
        "audit": found.to_dict(),
        "versions": versions(),
        "environment": recorded_environment(),
        "plugins": [asdict(plugin) for plugin in used_plugins(config)],
    } | ({} if parent is None else {"lineage": parent.lineage})


def _weight(config: Config, sources: Sequence[Source]) -> Tensor:
    """(C, H, W), mean 1: cell area where observed and forecast, times a factor for each channel."""
    data, cube, statistics = config.data, sources[0].data.cube, sources[0].statistics
    area = grid_of(cube).area
    counts = observed_in_all(sources, data.predicted)
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
