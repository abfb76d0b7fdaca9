"""Training, from beginning to end, the same in one process, under torchrun and under Ray Train.

The loop's whole interface to a cluster is where the run is kept (see storage.py), `leave`, which it
asks about once a second whether to end with a checkpoint, and `resume_from`.
"""

import logging
import math
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from climlstm import plugins
from climlstm.config import Config, dump_config, format_duration
from climlstm.errors import DataError, Stopped, TrainingError
from climlstm.files import temporary_folder
from climlstm.model.saving import load_forecaster, save_forecaster
from climlstm.training import checkpoint
from climlstm.training.agreement import Agreement, Decision
from climlstm.training.checkpoint import Position, Standing
from climlstm.training.learner import Learner
from climlstm.training.lineage import find_parent
from climlstm.training.parallel import Workers, workers
from climlstm.training.progress import JOURNAL, Journal, Observe, Record
from climlstm.training.resuming import require_same_data, require_same_order
from climlstm.training.stopping import stop_on_signals
from climlstm.training.storage import RunStorage, given_up, opened_run, persistently
from climlstm.training.task import Task, open_task
from climlstm.training.tracking import trackers
from climlstm.training.untrained import build_forecaster, choose_precision, count_parameters
from climlstm.training.validation import validate

logger = logging.getLogger(__name__)

Report = Callable[[dict[str, Any]], None]
"""Takes the metrics of a checkpoint that is kept; every worker calls it equally often."""

Leave = Callable[[], str | None]
"""Why this worker's training should end now with a checkpoint, if it should."""

SECONDS_BETWEEN_RECORDS = 2.0
SECONDS_BETWEEN_PUBLICATIONS = 15.0
"""Of the records, to a store in which each time the whole file is written."""

STOPPED = "stopped as asked"


def train(
    config: Config,
    *,
    report: Report | None = None,
    resume_from: Path | None = None,
    observe: Observe | None = None,
) -> None:
    """Train the forecaster that a run file describes.

    report: as above.
    resume_from: a checkpoint of the same run.
    observe: is shown each record of the first worker as it is made.
    Raises a ClimLSTMError where data, run file or checkpoint do not fit together, TrainingError
    where the loss is no longer finite, StorageError where a checkpoint cannot be kept, Stopped
    after SIGTERM or SIGINT, with the state saved.
    """
    with (
        opened_run(config) as storage,
        prepare_training(
            config, storage, report=report, resume_from=resume_from, observe=observe
        ) as training,
    ):
        if training.run() == STOPPED:
            raise stopped_as_asked(storage)


def stopped_as_asked(storage: RunStorage) -> Stopped:
    """What a user hears who has stopped a run."""
    return Stopped(
        f"Stopped as asked, with a checkpoint in {storage.location}. Go on with --resume."
    )


@contextmanager
def prepare_training(
    config: Config,
    storage: RunStorage,
    *,
    report: Report | None = None,
    resume_from: Path | None = None,
    observe: Observe | None = None,
    leave: Leave = lambda: None,
) -> "Iterator[Training]":
    """A training that is ready to run; other arguments and errors as `train`.

    Whatever is wrong with run file, data or checkpoint shows here, and alike on every worker.
    """
    if config.training.threads:
        torch.set_num_threads(config.training.threads)
    parent = find_parent(config, resume_from)
    with workers(gpu=config.cluster.gpu) as group, open_task(config, group, parent) as task:
        yield Training(
            config,
            group,
            task,
            storage,
            report or (lambda metrics: None),
            resume_from,
            observe,
            leave,
        )


@dataclass
class _Meter:
    """Loss and speed since the last record."""

    loss: torch.Tensor
    windows: int = 0
    began: float = 0.0
    waited: float = 0.0


class Training:
    """One run of the loop, as one worker sees it."""

    def __init__(
        self,
        config: Config,
        group: Workers,
        task: Task,
        storage: RunStorage,
        report: Report,
        resume_from: Path | None,
        observe: Observe | None,
        leave: Leave,
    ) -> None:
        self.config, self.group, self.task, self.storage = config, group, task, storage
        self.report, self.leave = report, leave
        settings = config.training
        self.steps = settings.epochs * task.plan.batches_per_epoch
        self.precision = choose_precision(settings.precision, group.device)
        self.loss = plugins.create("losses", settings.loss.name, settings.loss.options)
        torch.manual_seed(settings.seed)
        self.learner = Learner(
            build_forecaster(config, task.data.cube, task.statistics, precision=self.precision),
            self.loss,
            task.weight,
            config=settings,
            steps=self.steps,
            workers=group,
        )
        self.standing = Standing()
        self.kept: str | None = None
        """The last checkpoint that is kept."""
        if resume_from is not None:
            self.standing = self._load(resume_from)
            self.kept = f"{storage.location}/{resume_from.name}"
        elif task.parent is not None:
            self.learner.start_from(task.parent.state)
        self._check_same_start()
        self._failure: str | None = None
        """Why the training cannot go on, which the other workers do not know yet."""
        self._published = float("-inf")
        self.observers = self._observers(observe, resume_from) if group.is_first else []
        self.agreement = Agreement(group, self.standing.position.step)
        self._waited = task.waited_seconds
        self.began = time.monotonic()
        self.saved = self.began
        self.stop = threading.Event()

    def run(self, stop: threading.Event | None = None) -> str:
        """Train until the last epoch, until nothing improves, or until asked to; says which.

        stop: set by whoever asks; SIGTERM and SIGINT do where this is the main thread.
        """
        self.stop = stop or self.stop
        if self.group.world == 1:  # others would wait for this one
            self.task.stream.give_up = self.stop.is_set
        self._note_start()
        with stop_on_signals(self.stop):
            reason = self._train_epochs()
        self._observe(
            "end",
            reason=reason,
            seconds=time.monotonic() - self.began,
            best_loss=self.standing.best_loss,
        )
        return reason

    def _train_epochs(self) -> str:
        """Why the training ended."""
        if self.standing.unvalidated and not self._validate_and_save():
            return STOPPED
        for epoch in range(self.standing.position.epoch, self.config.training.epochs):
            if self._out_of_patience():
                return "no better for the given patience"
            try:
                reason = self._train_epoch(epoch)
            except DataError:  # while the next windows were read, so between two steps
                if self.group.world == 1:
                    self._save()
                raise
            if reason:
                return reason
        return "finished"

    def _train_epoch(self, epoch: int) -> str | None:
        """Why the training is to end before its last epoch, if it is."""
        settings = self.config.training
        first = self.standing.position.batch
        total = self.task.plan.batches_per_epoch
        meter = self._new_meter()
        for batch, (window, share) in enumerate(self.task.batches(epoch, first), start=first):
            step = self.standing.position.step
            meter.loss += self.learner.learn(window, step=step, share=share) * share
            meter.windows += len(window.init_time)
            done = batch + 1
            met = self.learner.meet(step, done=done, batches=total)
            position = (
                Position(epoch, done, step + 1)
                if done < total
                else Position(epoch + 1, 0, step + 1)
            )
            self.standing = replace(self.standing, position=position)
            if time.monotonic() - meter.began > SECONDS_BETWEEN_RECORDS:
                self._record_training(epoch, meter)
                meter = self._new_meter()
            every = settings.validate_every or total
            validated = done == total or (step + 1) % every == 0
            if validated:
                self._record_training(epoch, meter)
                if not self._validate_and_save():
                    return STOPPED
                meter = self._new_meter()
                if self._out_of_patience():
                    return None
            if met and self.agreement.is_due(step + 1):
                decision = self._meet()
                if (decision.leave or decision.save) and not validated:
                    self._save()
                if decision.leave and step + 1 < self.steps:
                    return decision.leave
        if self.standing.position.epoch > epoch:
            return None
        self._save()  # the stream gave up waiting
        return STOPPED

    def _meet(self) -> Decision:
        """Agree with the other workers on whether to save, and whether to stop."""
        waited = self.task.waited_seconds
        decision = self.agreement.meet(
            self.standing.position.step,
            leave=STOPPED if self.stop.is_set() else self.leave(),
            save=time.monotonic() - self.saved > 60 * self.config.training.checkpoint_minutes,
            busy_s=self.learner.stopwatch.read() + waited - self._waited,
            failure=self._failure,
        )
        if decision.failure:
            raise TrainingError(decision.failure)
        self._waited = waited
        if decision.remark:
            self._observe("note", text=decision.remark)
        return decision

    def _validate_and_save(self) -> bool:
        """False where the run was asked to stop; it validates when it goes on, then."""
        validated = self._validate()
        self.standing = replace(self.standing, unvalidated=not validated)
        self._save()
        return validated

    def _validate(self) -> bool:
        """Loss and skill on the validation period, by the averaged weights; False if stopped."""
        result = validate(
            self.learner.averaged,
            self.task.validation_windows(),
            horizon=self.config.training.horizon,
            loss=self.loss,
            weight=self.learner.weight,
            workers=self.group,
            stop=self.stop.is_set,
            members=self.config.training.members,
            seed=self.config.training.seed,
        )
        if result is None:
            return False
        if not math.isfinite(result.loss):
            raise TrainingError(self._diverged(f"The validation loss is {result.loss}"))
        best = result.loss < self.standing.best_loss
        self.standing = replace(
            self.standing,
            valid_loss=result.loss,
            best_loss=min(result.loss, self.standing.best_loss),
            since_best=0 if best else self.standing.since_best + 1,
        )
        leads = [
            format_duration(lead * self.config.data.step)
            for lead in range(1, self.config.training.horizon + 1)
        ]
        self._observe("valid", best=best, **result.record(leads))
        return True

    def _save(self) -> None:
        """Keep a checkpoint; every worker comes here.

        Storage that fails is tried again for half the time that the other workers wait.
        """
        if not self.learner.is_finite():
            raise TrainingError(self._diverged("There are weights that are not finite"))
        name = checkpoint.name_of(self.standing.position)
        seconds = self.config.cluster.timeout.total_seconds() / 2
        tensors = self.learner.tensors()
        failure = None
        if self.group.is_first:
            what = f"the checkpoint {name} cannot be kept in {self.storage.location}"
            keep = partial(self._keep, name, tensors)
            cause = persistently(keep, seconds=seconds, what=what, stop=self.stop)
            if cause is not None:
                failure = given_up(self.storage, name, last=self.kept, seconds=seconds, cause=cause)
        failure = self.group.exchange(failure)[0]
        if failure is not None:
            raise failure
        self.kept = f"{self.storage.location}/{name}"
        self.report(
            {
                "step": self.standing.position.step,
                "epoch": self.standing.position.epoch,
                "valid_loss": self.standing.valid_loss,
            }
        )
        self.saved = time.monotonic()

    def _keep(self, name: str, tensors: dict[str, torch.Tensor]) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        with temporary_folder(self.folder, checkpoint.WRITING) as folder:
            directory = folder / "checkpoint"
            directory.mkdir()
            self._write(directory, tensors)
            self.storage.commit(directory, name, keep=self.config.training.keep)

    def _write(self, directory: Path, tensors: dict[str, torch.Tensor]) -> None:
        averaged = self.learner.averaged
        provenance = self.task.provenance | {
            "run": self.config.name,
            "step": self.standing.position.step,
            "valid_loss": self.standing.valid_loss,
        }
        save_forecaster(directory, averaged.spec, averaged.state_dict(), provenance)
        checkpoint.write_training(directory, self.standing, tensors)
        (directory / "run.yaml").write_text(dump_config(self.config), encoding="utf-8")
        (directory / JOURNAL).write_bytes((self.folder / JOURNAL).read_bytes())

    def _load(self, directory: Path) -> Standing:
        standing, tensors = checkpoint.read_training(directory)
        forecaster, provenance = load_forecaster(directory)
        own = self.config.training.start_from is None  # else the statistics are the parent's
        require_same_data(
            directory,
            recorded=provenance["data"],
            now=self.task.provenance["data"],
            kept=forecaster.state_dict(),
            fresh=self.learner.averaged.state_dict() if own else {},
        )
        require_same_order(directory, provenance.get("order"), self.task.provenance["order"])
        self.learner.load(tensors, forecaster.state_dict())
        return standing

    def _check_same_start(self) -> None:
        """Raises TrainingError where workers found different checkpoints."""
        steps = self.group.exchange(self.standing.position.step)
        if len({*steps}) > 1:
            raise TrainingError(
                f"The workers found checkpoints of different steps {steps} in "
                f"{self.storage.location}. cluster.storage must be a folder that all hosts share, "
                "or a URL such as s3://bucket/runs."
            )

    @property
    def folder(self) -> Path:
        """Where the first worker writes."""
        return self.storage.folder

    def _observers(self, observe: Observe | None, resume_from: Path | None) -> list[Observe]:
        self.folder.mkdir(parents=True, exist_ok=True)
        checkpoint.tidy(self.folder)
        path = self.folder / JOURNAL
        if resume_from is not None and not path.exists():
            path.write_bytes((resume_from / JOURNAL).read_bytes())
        step = self.standing.position.step
        journal = Journal(path, until_step=step)
        told = trackers(self.config, self.folder, self.storage.location, step=step)
        return [journal, *([observe] if observe else []), *told, self._publish]

    def _publish(self, record: Record) -> None:
        """Records that others read in an object store; without them the training goes on."""
        now = time.monotonic()
        if record["event"] == "train" and now - self._published < SECONDS_BETWEEN_PUBLICATIONS:
            return
        self._published = now
        try:
            self.storage.publish_journal()
        except Exception as error:  # each store has its own errors
            logger.warning(
                "the records cannot be put into %s now: %s", self.storage.location, error
            )

    def _observe(self, event: str, **content: Any) -> None:
        record: Record = {
            "event": event,
            "time": time.time(),
            "step": self.standing.position.step,
            **content,
        }
        for observe in self.observers:
            observe(record)

    def _note_start(self) -> None:
        plan = self.task.plan
        self._observe(
            "start",
            model=self.config.model.name,
            parameters=count_parameters(self.learner.forecaster),
            windows=int(plan.starts.size),
            epochs=self.config.training.epochs,
            batches=plan.batches_per_epoch,
            workers=self.group.world,
            device=str(self.group.device),
            precision=str(self.precision).removeprefix("torch."),
        )

    def _new_meter(self) -> _Meter:
        zero = torch.zeros((), device=self.group.device)
        return _Meter(zero, began=time.monotonic(), waited=self.task.waited_seconds)

    def _record_training(self, epoch: int, meter: _Meter) -> None:
        """The first worker's own figures; nothing is exchanged for them."""
        seconds = time.monotonic() - meter.began
        if not meter.windows or not self.group.is_first:
            return
        world = self.group.world
        steps = meter.windows * world / self.config.training.batch_size
        loss = float(meter.loss) * world / max(steps, 1e-9)
        if not math.isfinite(loss):
            self._failure = self._diverged(f"The training loss is {loss}")
            if world == 1:
                raise TrainingError(self._failure)
            return  # the others would wait for this one: they hear of it at the next meeting
        step = self.standing.position.step
        self._observe(
            "train",
            epoch=epoch,
            epochs=self.config.training.epochs,
            steps=self.steps,
            loss=loss,
            horizon=self.learner.horizon(step - 1),
            learning_rate=self.learner.learning_rate(step - 1),
            samples_per_s=meter.windows * world / seconds,
            data_wait=(self.task.waited_seconds - meter.waited) / seconds,
        )

    def _diverged(self, what: str) -> str:
        return (
            f"{what} near step {self.standing.position.step}: the training has diverged. Go on "
            f"from the last checkpoint in {self.storage.location} with --resume and a smaller "
            "training.learning_rate."
        )

    def _out_of_patience(self) -> bool:
        patience = self.config.training.patience
        return patience is not None and self.standing.since_best >= patience
