"""The data of a run: source, plan, cube, statistics, climatology and windows, each made once.

Nothing is opened or read until it is asked for.
"""

import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xarray as xr

from climlstm.calendars import within
from climlstm.config import Config
from climlstm.data.cube.cube import CubePlan, plan_cube
from climlstm.data.normalised import transformed
from climlstm.data.others import require_same_grid, with_others
from climlstm.data.roles import (
    given_channels,
    imposed_shares,
    normalised_like_state,
    settings_of,
    streamed_channels,
)
from climlstm.data.sources.catalog import open_source
from climlstm.data.sources.declarations import FREE_RUNNING
from climlstm.data.statistics.climatology import climatology
from climlstm.data.statistics.compute import compute_statistics
from climlstm.data.statistics.statistics import Period, Statistics
from climlstm.data.store.memory import memory_budget
from climlstm.data.store.remote import Cache
from climlstm.data.windows.plan import WindowPlan, choose_segments
from climlstm.data.windows.starts import Starts, evenly_spaced, plan_windows
from climlstm.data.windows.stream import WindowStream
from climlstm.grid.winds import to_earth
from climlstm.plugins import TrainingPeriod

STATISTICS = ".statistics"
"""Folder beside the runs that keeps statistics and climatologies, by the digest of their data."""


@dataclass(frozen=True, eq=False)
class RunData:
    """The data section of a run file, opened and computed step by step.

    Each step raises a ClimLSTMError where catalog, source and run file do not fit together.
    """

    config: Config

    @cached_property
    def source(self) -> xr.Dataset:
        """The dataset that the catalog names, lazy."""
        data = self.config.data
        return open_source(data.catalog, data.source, **data.parameters)

    @cached_property
    def plan(self) -> CubePlan:
        """The recipe of the cube: positions in the source, and how channels are made."""
        return plan_cube(self.source, self.config.data)

    @cached_property
    def whole(self) -> CubePlan:
        """The plan with channels of other sources."""
        return with_others(self.plan, self.config.data)

    @cached_property
    def learned(self) -> CubePlan:
        """The plan after the transforms of channels: what is normalised and learned."""
        return transformed(self.whole, settings_of(self.config.data))

    @cached_property
    def further(self) -> tuple["RunData", ...]:
        """The data of each further source to train on, with its own training period."""
        found = []
        for each in self.config.data.also:
            data = self.config.data
            periods = data.periods.model_copy(update={"train": each.train or data.periods.train})
            own = {"source": each.source, "parameters": each.parameters, "periods": periods}
            data = data.model_copy(update=own | {"also": ()})
            found.append(RunData(self.config.model_copy(update={"data": data})))
            require_same_grid(each.source, found[-1].plan, self.plan)
        return tuple(found)

    @property
    def free_running(self) -> bool:
        """Whether the source is declared to be a model that runs freely."""
        return FREE_RUNNING in self.source.attrs

    @property
    def cube(self) -> xr.Dataset:
        """The channels under our names, in our units and order; lazy."""
        return self.whole.cube

    @property
    def periods(self) -> dict[str, Period]:
        """First and last moment of `train`, `valid` and `test`."""
        return self.config.data.periods.spans

    @cached_property
    def statistics(self) -> Statistics:
        """Mean, standard deviations and gaps of the transformed values of all channels with time;
        from the training period, kept on disk."""
        periods = self.periods
        found = compute_statistics(
            self.learned,
            channels=streamed_channels(self.config.data),
            train=periods["train"],
            others=(periods["valid"], periods["test"]),
            **self._kept,
        )
        return normalised_like_state(found)

    @property
    def observed(self) -> xr.Dataset:
        """For each predicted channel, the cells (rows, columns) that ever have a value and are
        forecast."""
        data, grid = self.config.data, self.plan.grid
        known = self.statistics.of(data.predicted)
        imposed = imposed_shares(data, self.cube)
        forecast = known.observed if imposed is None else known.observed & ~(imposed > 0)
        masks = zip(known.channels, forecast, strict=True)
        return xr.Dataset({name: (grid.dims, mask) for name, mask in masks}, grid.coordinates())

    @cached_property
    def climatology(self) -> xr.Dataset:
        """Mean of the training period, (hour, dayofyear, latitude, longitude); kept on disk."""
        return climatology(
            self.whole,
            self.periods["train"],
            channels=streamed_channels(self.config.data),
            unusable=self.statistics.unusable,
            **self._kept,
        )

    def training_period(self, leads: int, *, earth: bool = True) -> TrainingPeriod:
        """The usable steps of the training period, which baselines are fitted to.

        earth: whether winds point east and north, as in forecasts, and not along the grid.
        """
        turned: Callable[[xr.Dataset], xr.Dataset] = to_earth if earth else lambda fields: fields
        times = self.cube["time"].values
        inside = within(times, self.periods["train"]) & ~np.isin(times, self.statistics.unusable)
        return TrainingPeriod(
            cube=turned(self.cube[list(self.config.data.predicted)].isel(time=inside)),
            climatology=turned(self.climatology),
            step=self.config.data.step,
            leads=leads,
            cache=statistics_folder(self.config.cluster.storage),
        )

    @cached_property
    def train_starts(self) -> Starts:
        """Positions in time at which the training windows begin."""
        return self._starts("train", self.statistics.unusable)

    @cached_property
    def valid_starts(self) -> Starts:
        """Positions of the windows whose loss chooses the checkpoint, evenly spaced."""
        return self.validated(self.statistics.unusable)

    def validated(self, unusable: Any) -> Starts:
        """The same where some times cannot be used; no values are read."""
        starts = self._starts("valid", unusable)
        return evenly_spaced(starts, self.config.training.validation_windows)

    def open_windows(
        self,
        statistics: Statistics | None = None,
        *,
        device: str | torch.device = "cpu",
        neighbours: int = 1,
    ) -> WindowStream:
        """A stream of the run's windows; to be closed.

        statistics: those to normalise with; None: values as they are, before anything is fitted.
        neighbours: workers that share the memory of this machine.
        """
        data, training = self.config.data, self.config.training
        names = streamed_channels(data)
        chosen = None if statistics is None else statistics.of(names)
        # of what the workers of a machine share, the part of the one that takes most of each batch
        part = -(-training.batch_size // neighbours) / training.batch_size
        return WindowStream(
            self.learned,
            channels=data.predicted,
            given=[each.name for each in given_channels(data)],
            history=self.config.model.history,
            horizon=training.horizon,
            mean=np.zeros(len(names)) if chosen is None else chosen.mean,
            std=np.ones(len(names)) if chosen is None else chosen.std,
            observed=None if chosen is None else chosen.observed,
            forcing=data.forcing,
            memory=memory_budget(data.memory, part=part),
            remote_cache=self._remote_cache,
            device=device,
        )

    def order(self, starts: Starts, stream: WindowStream) -> WindowPlan:
        """The order of the training windows; it does not depend on the machine."""
        training = self.config.training
        segment, mixed = choose_segments(
            starts.size,
            length=stream.length,
            batch_size=training.batch_size,
            step_bytes=stream.reader.step_bytes,
            chunk=stream.reader.chunk_steps,
            memory=self.config.data.memory,
        )
        return WindowPlan(
            starts, batch_size=training.batch_size, seed=training.seed, segment=segment, mixed=mixed
        )

    def _starts(self, period: str, unusable: Any) -> Starts:
        return plan_windows(
            self.plan.times.values,
            period=self.periods[period],
            history=self.config.model.history,
            horizon=self.config.training.horizon,
            step=self.config.data.step,
            unusable=unusable,
        )

    @property
    def _remote_cache(self) -> Cache | None:
        cache = self.config.data.cache
        return Cache(Path(cache.folder), cache.size) if cache else None

    @property
    def _kept(self) -> dict[str, Any]:
        folder = statistics_folder(self.config.cluster.storage)
        return {"cache": folder, "remote_cache": self._remote_cache}


def statistics_folder(storage: str) -> Path:
    """Folder for statistics: beside the runs, if this machine has their folder and may write there;
    else, as for runs in an object store, in the user's cache."""
    runs = Path(storage)
    here = next((folder for folder in (runs, runs.parent) if folder.is_dir()), None)
    if "://" not in storage and here is not None and os.access(here, os.W_OK):
        return runs / STATISTICS
    return user_cache() / "statistics"


def user_cache() -> Path:
    """Folder of this user on this machine for what can be fetched or computed again."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "climlstm")
