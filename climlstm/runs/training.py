"""Train what a run file asks for."""

import os
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

from climlstm.config import Config
from climlstm.errors import ConfigError
from climlstm.files import lock
from climlstm.training.loop import train
from climlstm.training.progress import Observe
from climlstm.training.storage import RunStorage, best_location, opened_run


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
                from climlstm.on_ray.training import train_on_ray

                train_on_ray(config, address=address, observe=observe)
            else:
                train(config, resume_from=storage.latest(), observe=observe)
            return best_location(storage)


def _kept_to_one(storage: RunStorage, name: str) -> AbstractContextManager[None]:
    """Two processes in one run would delete each other's checkpoints. Of torchrun's, one asks."""
    if "://" in storage.location or int(os.environ.get("RANK", "0")) > 0:
        return nullcontext()
    return lock(storage.folder, f"The run '{name}' is being trained")
