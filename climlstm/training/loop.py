"""Training, from beginning to end, the same in one process, under torchrun and under Ray Train.

The loop's whole interface to a cluster is where the run is kept (see storage.py), `leave`, which it
asks about once a second whether to end with a checkpoint, and `resume_from`.
"""

import math
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from climlstm import plugins
from climlstm.config import Config
from climlstm.errors import DataError, Stopped, TrainingError
from climlstm.training.agreement import Agreement, Decision
from climlstm.training.checkpoint import Position, Standing
from climlstm.training.keeping import Keeper
from climlstm.training.learner import Learner
from climlstm.training.lineage import find_parent
from climlstm.training.parallel import Workers, workers
from climlstm.training.progress import Observe
from climlstm.training.recording import Meter, Recorder
from climlstm.training.start import first_forecaster
from climlstm.training.stopping import stop_on_signals
from climlstm.training.storage import RunStorage, opened_run
from climlstm.training.task import Task, open_task
from climlstm.training.untrained import choose_precision, count_parameters
from climlstm.training.validation import validate

Report = Callable[[dict[str, Any]], None]
"""Takes the metrics of a checkpoint that is kept; every worker calls it equally often."""

Leave = Callable[[], str | None]
"""Why this worker's training should end now with a checkpoint, if it should."""

SECONDS_BETWEEN_RECORDS = 2.0

STOPPED = "stopped as asked"


def run_training(
    config: Config,
    *,
    report: Report | None = None,
    resume_from: Path | None = None,
    observe: Observe | None = None,
) -> None:
    """Train the forecaster that a run file describes.

    report: takes the metrics of each checkpoint that is kept, on every worker.
    resume_from: a checkpoint of the same run.
    observe: is shown each record of the first worker as it is made.
    Raises a ClimLSTMError where data, run file or checkpoint do not fit together, TrainingError
    where the loss is no longer finite, StorageError where a checkpoint cannot be kept, Stopped
    after SIGTERM or SIGINT, with the state saved.
    """
    options: dict[str, Any] = {"report": report, "resume_from": resume_from, "observe": observe}
    with (
        opened_run(config) as storage,
        prepare_training(config, storage, **options) as training,
    ):
        if training.run() == STOPPED:
            raise stopped_as_asked(storage)


def stopped_as_asked(storage: RunStorage) -> Stopped:
    """The error of a run that a user has stopped."""
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
        training = Training(config, group, task, storage, resume_from=resume_from, observe=observe)
        training.report, training.leave = report or training.report, leave
        yield training


class Training:
    """One run of the loop, as one worker sees it."""

    def __init__(
        self,
        config: Config,
        group: Workers,
        task: Task,
        storage: RunStorage,
        *,
        resume_from: Path | None,
        observe: Observe | None,
    ) -> None:
        self.config, self.group, self.task, self.storage = config, group, task, storage
        self.report: Report = lambda metrics: None
        self.leave: Leave = lambda: None
        settings = config.training
        self.steps = settings.epochs * task.batches_per_epoch
        self.precision = choose_precision(settings.precision, group.device)
        self.loss = plugins.create("losses", settings.loss.name, settings.loss.options)
        torch.manual_seed(settings.seed)
        self.learner = Learner(
            first_forecaster(task.data, task.sources[0].statistics, precision=self.precision),
            self.loss,
            task.weight,
            config=settings,
            steps=self.steps,
            workers=group,
        )
        self.keeper = Keeper(config, task, storage, self.learner)
        self.standing = Standing()
        if resume_from is not None:
            self.standing = self.keeper.load(resume_from)
        elif task.parent is not None:
            self.learner.start_from(task.parent.state)
        self._check_same_start()
        self._failure: str | None = None
        """Why the training cannot go on, which the other workers do not know yet."""
        self.recorder = Recorder(
            config, group, storage, step=self._step, resume_from=resume_from, observe=observe
        )
        self.agreement = Agreement(group, self._step)
        self._waited = task.waited_seconds
        self.saved = self.began = time.monotonic()
        self.stop = threading.Event()

    @property
    def _step(self) -> int:
        """Optimiser steps that are done."""
        return self.standing.position.step

    def run(self, stop: threading.Event | None = None) -> str:
        """Train until the last epoch, until nothing improves, or until asked to; says which.

        stop: set by whoever asks; SIGTERM and SIGINT do where this is the main thread.
        """
        self.stop = stop or self.stop
        if self.group.world == 1:  # others would wait for this one
            self.task.give_up_if(self.stop.is_set)
        self._record_start()
        with stop_on_signals(self.stop):
            reason = self._train_epochs()
        seconds, best = time.monotonic() - self.began, self.standing.best_loss
        self.recorder("end", self._step, reason=reason, seconds=seconds, best_loss=best)
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
        first, total = self.standing.position.batch, self.task.batches_per_epoch
        every = self.config.training.validate_every or total
        meter = Meter(self.task)
        for batch, (window, share) in enumerate(self.task.batches(epoch, first), start=first):
            step, done = self._step, batch + 1
            meter.add(self.learner.learn(window, step=step, share=share), window, share)
            met = self.learner.meet(step, done=done, batches=total)
            place = (epoch, done) if done < total else (epoch + 1, 0)
            self.standing = replace(self.standing, position=Position(*place, step + 1))
            if self.learner.watch.at_once:
                self._look_for_failure()
            if meter.seconds > SECONDS_BETWEEN_RECORDS:
                self._record_training(epoch, meter)
            validated = done == total or (step + 1) % every == 0
            if validated:
                self._record_training(epoch, meter)
                if not self._validate_and_save():
                    return STOPPED
                meter.restart()
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
            self._step,
            leave=STOPPED if self.stop.is_set() else self.leave(),
            save=time.monotonic() - self.saved > 60 * self.config.training.checkpoint_minutes,
            busy_s=self.learner.stopwatch.read() + waited - self._waited,
            failure=self._failure,
        )
        if decision.failure:
            raise TrainingError(decision.failure)
        self._waited = waited
        if decision.remark:
            self.recorder("note", self._step, text=decision.remark)
        return decision

    def _validate_and_save(self) -> bool:
        """False where the run was asked to stop; it validates when it goes on, then."""
        validated = self._validate()
        self.standing = replace(self.standing, unvalidated=not validated)
        self._save()
        return validated

    def _validate(self) -> bool:
        """Loss and skill on the validation period, by the averaged weights; False if stopped."""
        settings = self.config.training
        result = validate(
            self.learner.averaged,
            self.task.validation_windows(),
            horizon=settings.horizon,
            loss=self.loss,
            weight=self.learner.weight,
            workers=self.group,
            stop=self.stop.is_set,
            members=settings.members,
            seed=settings.seed,
        )
        if result is None:
            return False
        leads = [str(self.config.data.step * n) for n in range(1, settings.horizon + 1)]
        if not math.isfinite(result.loss):
            wrong = result.explain(self.learner.forecaster.channels, leads)
            raise TrainingError(self._advise(wrong))
        best = result.loss < self.standing.best_loss
        self.standing = replace(
            self.standing,
            valid_loss=result.loss,
            best_loss=min(result.loss, self.standing.best_loss),
            since_best=0 if best else self.standing.since_best + 1,
        )
        self.recorder("valid", self._step, best=best, **result.record(leads))
        return True

    def _save(self) -> None:
        """Keep a checkpoint; every worker comes here."""
        self._look_for_failure()
        if not self.learner.is_finite():
            what = self._failure or self._advise(f"At step {self._step} weights are not finite")
            raise TrainingError(what)
        self.keeper.save(self.standing, self.stop)
        at, loss = self.standing.position, self.standing.valid_loss
        self.report({"step": at.step, "epoch": at.epoch, "valid_loss": loss})
        self.saved = time.monotonic()

    def _look_for_failure(self) -> None:
        """Raises TrainingError where a step went wrong; of several workers, at their meeting."""
        wrong = self.learner.watch.look()
        if wrong and self._failure is None:
            self._failure = self._advise(wrong)
        if self._failure and self.group.world == 1:  # others would wait for this one
            raise TrainingError(self._failure)

    def _advise(self, wrong: str) -> str:
        """The failure, and what can be done about it."""
        rate = self.config.training.learning_rate
        again = "No checkpoint was kept before: start anew with --overwrite"
        if self.keeper.last:
            again = f"The last checkpoint before is {self.keeper.last}: go on with --resume"
        return (
            f"{wrong}: the training has diverged. {again} and a smaller training.learning_rate "
            f"(now {rate:g}); with the same settings it would diverge again."
        )

    def _check_same_start(self) -> None:
        """Raises TrainingError where workers found different checkpoints."""
        steps = self.group.exchange(self._step)
        if len({*steps}) > 1:
            raise TrainingError(
                f"The workers found checkpoints of different steps {steps} in "
                f"{self.storage.location}. cluster.storage must be a folder that all hosts share, "
                "or a URL such as s3://bucket/runs."
            )

    def _record_start(self) -> None:
        self.recorder(
            "start",
            self._step,
            model=self.config.model.name,
            parameters=count_parameters(self.learner.forecaster),
            windows=sum(int(source.plan.starts.size) for source in self.task.sources),
            epochs=self.config.training.epochs,
            batches=self.task.batches_per_epoch,
            workers=self.group.world,
            device=str(self.group.device),
            precision=str(self.precision).removeprefix("torch."),
        )

    def _record_training(self, epoch: int, meter: Meter) -> None:
        """Record the figures of this worker since the last record."""
        self._look_for_failure()
        figures = meter.read()
        if figures is None or self._failure:
            return
        self.recorder(
            "train",
            self._step,
            epoch=epoch,
            epochs=self.config.training.epochs,
            steps=self.steps,
            horizon=self.learner.horizon(self._step - 1),
            learning_rate=self.learner.learning_rate(self._step - 1),
            **figures,
        )

    def _out_of_patience(self) -> bool:
        patience = self.config.training.patience
        return patience is not None and self.standing.since_best >= patience
