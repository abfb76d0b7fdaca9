"""Train what a run file asks for."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from climlstm.config import Config, as_config
from climlstm.errors import ConfigError
from climlstm.files import lock
from climlstm.training.loop import run_training
from climlstm.training.progress import Observe
from climlstm.training.storage import RunStorage, best_location, opened_run
from climlstm.training.tuning import Sweep, write_sweep


def train(
    config: Config | str | Path,
    *,
    resume: bool = False,
    overwrite: bool = False,
    under_ray: bool = True,
    address: str | None = None,
    observe: Observe | None = None,
) -> Path | str:
    """Train, and return where the best checkpoint is: its folder or, in an object store, its URL.

    config: a run, or the path of its file.
    resume: go on from the latest checkpoint of the run, if there is one.
    overwrite: replace an earlier run of the same name as soon as there is a checkpoint; a training
        that ends before leaves the earlier run as it was.
    under_ray: with the workers of the run file; otherwise in this process, or as torchrun has it.
    address: a running Ray cluster, 'auto' or HOST:PORT; None starts Ray on this machine.
    observe: is called with each record of progress.
    Raises ConfigError where the run has been trained before and neither is asked for.

    >>> import climlstm
    >>> checkpoint = climlstm.train("run.yaml", under_ray=False)
    >>> checkpoint.parent.name
    'small'
    """
    config = as_config(config)
    with opened_run(config) as storage, _claimed(storage, config.name, overwrite=overwrite):
        kept = [] if overwrite else storage.names()
        if kept and not resume:
            raise _trained_before(config, storage)
        if under_ray:
            from climlstm.on_ray.training import train_on_ray

            train_on_ray(config, address=address, observe=observe)
        else:
            run_training(config, resume_from=storage.latest() if kept else None, observe=observe)
        return best_location(storage)


def tune(
    config: Config, *, resume: bool, address: str | None, say: Callable[[str], None]
) -> tuple[Sweep, list[Path]]:
    """Sweep over the values of the section `tune`, and files with its tables and a figure.

    The parameters are those of `on_ray.tuning.tune_on_ray`, and the errors too.
    """
    from climlstm.on_ray.tuning import tune_on_ray
    from climlstm.plots import plot_sweep, save  # an extra

    sweep = tune_on_ray(config, resume=resume, address=address, say=say)
    picture = sweep.best.with_name("trials.png")
    written = write_sweep(sweep)
    save(plot_sweep(sweep.trials, sweep.curves, sweep.keys), picture)
    return sweep, [*written, picture]


def check_untrained(config: Config) -> None:
    """Raises ConfigError where the run has been trained before."""
    with opened_run(config) as storage:
        if storage.names():
            raise _trained_before(config, storage)


def _trained_before(config: Config, storage: RunStorage) -> ConfigError:
    return ConfigError(
        f"The run '{config.name}' has been trained before, up to "
        f"{storage.location}/{storage.names()[-1]}. Go on with --resume, start anew with "
        "--overwrite, or give it another name."
    )


@contextmanager
def _claimed(storage: RunStorage, name: str, *, overwrite: bool) -> Iterator[None]:
    """Keep other processes out of a run, and an earlier run safe until this one has a checkpoint.

    Two processes in one run would delete each other's checkpoints. Of torchrun's, one asks.
    """
    if int(os.environ.get("RANK", "0")) > 0:
        yield
        return
    storage.prove()
    with lock(storage.folder, f"The run '{name}' is being trained"):
        storage.settle()  # of a process that was killed
        if overwrite and storage.names():
            storage.set_aside()
        try:
            yield
        finally:
            storage.settle()
