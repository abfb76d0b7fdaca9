"""Saving and loading the state of a training, for all workers together."""

import threading
from functools import partial
from pathlib import Path

import torch

from climlstm.config import Config, dump_config
from climlstm.errors import StorageError
from climlstm.model.saving import read_forecaster, save_forecaster
from climlstm.training import checkpoint
from climlstm.training.checkpoint import Standing
from climlstm.training.learner import Learner
from climlstm.training.progress import JOURNAL
from climlstm.training.resuming import require_same_data, require_same_order
from climlstm.training.storage import RunStorage, describe_error, retry
from climlstm.training.task import Task


class Keeper:
    """Keeps the checkpoints of one training in its storage."""

    def __init__(self, config: Config, task: Task, storage: RunStorage, learner: Learner) -> None:
        self.config, self.task, self.storage, self.learner = config, task, storage, learner
        self.last: str | None = None
        """Place of the last good checkpoint."""

    def save(self, standing: Standing, stop: threading.Event) -> None:
        """Keep a checkpoint; every worker comes here.

        Storage that fails is tried again for half the time that the other workers wait.
        Raises StorageError, on every worker, where the checkpoint could not be kept.
        """
        group, name = self.task.workers, checkpoint.name_of(standing.position)
        tensors = self.learner.tensors()
        failure = self._write_out(name, standing, tensors, stop) if group.is_first else None
        failure = group.exchange(failure)[0]
        if failure is not None:
            raise failure
        self.last = f"{self.storage.location}/{name}"

    def _write_out(
        self, name: str, standing: Standing, tensors: dict[str, torch.Tensor], stop: threading.Event
    ) -> StorageError | None:
        place, seconds = self.storage.location, self.config.cluster.timeout.total_seconds() / 2
        write = partial(self._write, standing, tensors)
        cause = retry(
            partial(self.storage.save, name, write, keep=self.config.training.keep),
            seconds=seconds,
            what=f"the checkpoint {name} cannot be kept in {place}",
            stop=stop,
        )
        if cause is None:
            return None
        before = "There is no checkpoint before it."
        if self.last:
            before = f"The last good checkpoint is {self.last}."
        return StorageError(
            f"The checkpoint {name} could not be kept in {place}, tried for {seconds:.0f} s: "
            f"{describe_error(cause)}. {before} Mend the storage, then go on with --resume."
        )

    def _write(self, standing: Standing, tensors: dict[str, torch.Tensor], directory: Path) -> None:
        averaged = self.learner.averaged
        provenance = self.task.provenance | {
            "run": self.config.name,
            "step": standing.position.step,
            "valid_loss": standing.valid_loss,
        }
        save_forecaster(directory, averaged.spec, averaged.state_dict(), provenance)
        checkpoint.write_training(directory, standing, tensors)
        (directory / "run.yaml").write_text(dump_config(self.config), encoding="utf-8")
        (directory / JOURNAL).write_bytes((self.storage.folder / JOURNAL).read_bytes())

    def load(self, directory: Path) -> Standing:
        """Go on from a checkpoint of the run.

        Raises ConfigError where it was trained on other data or in another order, CheckpointError
        where it belongs to another network.
        """
        standing, tensors = checkpoint.read_training(directory)
        forecaster, provenance = read_forecaster(directory)
        settings = self.config.training  # without statistics of its own, they are the parent's
        own = settings.start_from is None or settings.normalise == "own"
        require_same_data(
            directory,
            recorded=provenance["data"],
            now=self.task.provenance["data"],
            kept=forecaster.state_dict(),
            fresh=self.learner.averaged.state_dict() if own else {},
        )
        require_same_order(directory, provenance.get("order"), self.task.provenance["order"])
        self.learner.load(tensors, forecaster.state_dict())
        self.last = f"{self.storage.location}/{directory.name}"
        return standing
