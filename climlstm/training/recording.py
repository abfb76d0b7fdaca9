"""The records of a running training: measured, and passed on by the first worker."""

import logging
import math
import time
from pathlib import Path
from typing import Any

import torch

from climlstm.config import Config
from climlstm.data.windows.stream import Window
from climlstm.training import checkpoint
from climlstm.training.parallel import Workers
from climlstm.training.progress import JOURNAL, Journal, Observe, Record
from climlstm.training.storage import RunStorage
from climlstm.training.task import Task
from climlstm.training.tracking import trackers

logger = logging.getLogger(__name__)

SECONDS_BETWEEN_PUBLICATIONS = 15.0
"""Time between copies of the journal to an object store, each of which writes the whole file."""


class Recorder:
    """Passes records to the run's journal, its trackers and an observer; only on the first worker.

    resume_from: the checkpoint that the run goes on from, at `step`; later records are dropped.
    """

    def __init__(
        self,
        config: Config,
        group: Workers,
        storage: RunStorage,
        *,
        step: int,
        resume_from: Path | None,
        observe: Observe | None,
    ) -> None:
        self._storage = storage
        self._published = -math.inf
        self._observers: list[Observe] = []
        if not group.is_first:
            return
        storage.folder.mkdir(parents=True, exist_ok=True)
        checkpoint.tidy(storage.folder)
        path = storage.folder / JOURNAL
        if resume_from is not None and not path.exists():
            path.write_bytes((resume_from / JOURNAL).read_bytes())
        self._observers = [
            Journal(path, until_step=step),
            *([observe] if observe else []),
            *trackers(config, storage.folder, storage.location, step=step),
            self._publish,
        ]

    def __call__(self, event: str, step: int, **content: Any) -> None:
        """Record an event after `step` optimiser steps."""
        record: Record = {"event": event, "time": time.time(), "step": step, **content}
        for observe in self._observers:
            observe(record)

    def _publish(self, record: Record) -> None:
        """Let others read the journal in an object store; if that fails, the training goes on."""
        now = time.monotonic()
        if record["event"] == "train" and now - self._published < SECONDS_BETWEEN_PUBLICATIONS:
            return
        self._published = now
        try:
            self._storage.publish_journal()
        except Exception as error:  # each store has its own errors
            logger.warning(
                "the records cannot be put into %s now: %s", self._storage.location, error
            )


class Meter:
    """Loss and speed of this worker since the last record; nothing is exchanged for them."""

    def __init__(self, task: Task) -> None:
        self._task = task
        self.restart()

    def restart(self) -> None:
        """Leave out what was counted so far."""
        self._loss = torch.zeros((), device=self._task.workers.device)
        self._windows, self._began = 0, time.monotonic()
        self._waited = self._task.waited_seconds

    @property
    def seconds(self) -> float:
        """Time since the last record."""
        return time.monotonic() - self._began

    def add(self, loss: torch.Tensor, window: Window, share: float) -> None:
        """Count the windows of a step, a share of its batch, with their mean loss."""
        self._loss += loss * share
        self._windows += len(window.init_time)

    def read(self) -> dict[str, float] | None:
        """Figures since the last record, if there was a step, and a new start."""
        seconds, world = self.seconds, self._task.workers.world
        figures = None
        if self._windows:
            steps = self._windows * world / self._task.plan.batch_size
            figures = {
                "loss": float(self._loss) * world / max(steps, 1e-9),
                "samples_per_s": self._windows * world / seconds,
                "data_wait": (self._task.waited_seconds - self._waited) / seconds,
            }
        self.restart()
        return figures
