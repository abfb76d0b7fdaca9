"""Where a run is kept: a folder, or a place in an object store; checkpoints are there whole or not.

The first worker writes a run into a folder. Where `cluster.storage` is a URL (s3://, gs://, or
what else fsspec opens), that is a temporary one, and each finished checkpoint is copied from there:
the file that makes it count comes last, and an object is there whole or not at all.
"""

import json
import logging
import re
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import fsspec

from climlstm.config import Config
from climlstm.config.secrets import redact
from climlstm.data.run_data import user_cache
from climlstm.errors import CheckpointError, ClimLSTMError, ConfigError, StorageError
from climlstm.files import write_whole
from climlstm.training import checkpoint
from climlstm.training.progress import JOURNAL, Record, parse_journal, read_journal

logger = logging.getLogger(__name__)

COUNTS = "training.json"
"""The last file of a checkpoint that is copied to a store, and the first that is deleted there."""

FIRST_PAUSE_S, LONGEST_PAUSE_S = 1.0, 30.0
"""Between two tries of storage that fails; each pause is twice the one before."""


_MISTAKES = (ClimLSTMError, ArithmeticError, AttributeError, LookupError, NameError, TypeError)
"""Errors that no waiting mends."""


class RunStorage(Protocol):
    """The checkpoints and records of one run."""

    location: str
    """For people: a path or a URL."""
    folder: Path
    """Where the first worker writes."""

    def prove(self) -> None:
        """Raises ConfigError where nothing can be written."""

    def latest(self) -> Path | None:
        """Where to go on: a folder here with the last checkpoint that is whole, if there is one."""

    def commit(self, written: Path, name: str, *, keep: int) -> None:
        """Give a finished checkpoint its name; of all, the `keep` best and the latest stay."""

    def names(self) -> list[str]:
        """Of the checkpoints that count, oldest first."""

    def publish_journal(self) -> None:
        """Let others read the records that are written so far."""

    def journal(self) -> list[Record]:
        """The records as others can read them."""

    def delete(self) -> None:
        """Remove the run with all that it holds."""


class FolderStorage:
    """A run in a folder; workers on several hosts need it under one path."""

    def __init__(self, folder: Path) -> None:
        self.location, self.folder = str(folder), folder

    def prove(self) -> None:
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=self.folder) as file:
                file.write(b"climlstm")
        except OSError as error:
            raise ConfigError(
                f"cluster.storage: {self.folder} cannot be written: {error}. Name another folder."
            ) from error

    def latest(self) -> Path | None:
        return checkpoint.latest_checkpoint(self.folder)

    def commit(self, written: Path, name: str, *, keep: int) -> None:
        checkpoint.commit(written, self.folder, name)
        checkpoint.prune(self.folder, keep)

    def names(self) -> list[str]:
        return sorted(path.name for path in self.folder.glob("step-*"))

    def publish_journal(self) -> None:
        pass

    def journal(self) -> list[Record]:
        return read_journal(self.folder / JOURNAL)

    def delete(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)


class ObjectStorage:
    """A run in an object store, written by way of a folder on this host."""

    def __init__(self, location: str, folder: Path) -> None:
        """Raises ConfigError where the store cannot be opened."""
        self.location, self.folder = location, folder
        try:
            self.files, self.root = fsspec.core.url_to_fs(location, use_listings_cache=False)
        except (ImportError, ValueError) as error:
            raise ConfigError(
                f"cluster.storage: {location} cannot be opened: {error}. For s3:// and gs://, "
                "install climlstm[cloud]; otherwise name a folder that all hosts share."
            ) from error

    def prove(self) -> None:
        with self._answering("written"):
            self.files.pipe_file(f"{self.root}/.written", b"climlstm")
            self.files.rm_file(f"{self.root}/.written")

    def names(self) -> list[str]:
        with self._answering("listed"):
            found = self.files.glob(f"{self.root}/step-*/{COUNTS}")
        return sorted(str(path).split("/")[-2] for path in found)

    def latest(self) -> Path | None:
        return next(self._whole(reversed(self.names())), None)

    def best(self) -> str:
        """Name of the checkpoint with the lowest validation loss.

        Raises CheckpointError where there is none.
        """
        losses = self._losses()
        if not losses:
            raise CheckpointError(f"{self.location} holds no whole checkpoint. Train first.")
        return min(losses, key=lambda name: losses[name])

    def _losses(self) -> dict[str, float]:
        """Validation loss of each checkpoint that counts, oldest first."""
        with self._answering("read"):
            return {
                name: float(
                    json.loads(self.files.cat_file(f"{self.root}/{name}/{COUNTS}"))["valid_loss"]
                )
                for name in self.names()
            }

    def _whole(self, names: Any) -> Iterator[Path]:
        for name in names:
            try:
                yield self.fetch(name)
            except CheckpointError as error:
                logger.warning("leaving out a damaged checkpoint: %s", error)

    def fetch(self, name: str) -> Path:
        """Copy a checkpoint here, unless the same is here already.

        Raises CheckpointError where it is damaged, ConfigError where it cannot be read.
        """
        place = self.folder / name
        with self._answering("read"):
            stored = self.files.cat_file(f"{self.root}/{name}/{COUNTS}")
            if not place.exists() or (place / COUNTS).read_bytes() != stored:
                shutil.rmtree(place, ignore_errors=True)
                with write_whole(place) as copy:
                    self.files.get(f"{self.root}/{name}/", f"{copy}/", recursive=True)
        checkpoint.check(place)
        return place

    def commit(self, written: Path, name: str, *, keep: int) -> None:
        place = f"{self.root}/{name}"
        self._remove(name)  # the same step again, after resuming from an earlier checkpoint
        for path in sorted(written.iterdir(), key=lambda path: path.name == COUNTS):
            self.files.put_file(str(path), f"{place}/{path.name}")
        checkpoint.commit(written, self.folder, name)
        self.publish_journal()
        self._prune(keep)

    def _prune(self, keep: int) -> None:
        losses = self._losses()
        names = list(losses)
        stay = {*sorted(names, key=lambda name: losses[name])[:keep], *names[-1:]}
        for name in {*names} - stay:
            self._remove(name)
            shutil.rmtree(self.folder / name, ignore_errors=True)

    def _remove(self, name: str) -> None:
        place = f"{self.root}/{name}"
        for path in (f"{place}/{COUNTS}", place):
            if self.files.exists(path):
                self.files.rm(path, recursive=True)

    def publish_journal(self) -> None:
        self.files.put_file(str(self.folder / JOURNAL), f"{self.root}/{JOURNAL}")

    def journal(self) -> list[Record]:
        try:
            return parse_journal(self.files.cat_file(f"{self.root}/{JOURNAL}").decode())
        except FileNotFoundError:
            return []

    def delete(self) -> None:
        with self._answering("emptied"):
            if self.files.exists(self.root):
                self.files.rm(self.root, recursive=True)

    @contextmanager
    def _answering(self, what: str) -> Iterator[None]:
        """Turns whatever a store's client raises into a ConfigError: each has its own errors."""
        try:
            yield
        except ClimLSTMError:
            raise
        except Exception as error:
            raise ConfigError(
                f"cluster.storage: {self.location} cannot be {what}: {_told(error)}. Check the "
                "address and the credentials, as the store's own tools want them."
            ) from error


@contextmanager
def opened_run(config: Config) -> Iterator[RunStorage]:
    """The storage of a run; what it keeps on this host for a store is deleted at the end."""
    if "://" not in config.cluster.storage:
        yield FolderStorage(run_folder(config))
        return
    with tempfile.TemporaryDirectory(prefix=f"climlstm-{config.name}-") as folder:
        yield ObjectStorage(f"{config.cluster.storage.rstrip('/')}/{config.name}", Path(folder))


def run_folder(config: Config) -> Path:
    """The folder of a run that is kept in one: checkpoints, journal, run file."""
    return Path(config.cluster.storage) / config.name


def fetch_checkpoint(location: str) -> Path:
    """A checkpoint in an object store, copied into the user's cache on this machine.

    location: of a checkpoint, or of a run, of which the best is taken.
    Raises ConfigError where the store does not answer, CheckpointError where it has none.
    """
    run, name = re.fullmatch(r"(.*?)(?:/(step-\d+))?/*", location).groups()  # type: ignore[union-attr]
    storage = ObjectStorage(run, user_cache() / re.sub(r"\W+", "-", run))
    return storage.fetch(name or storage.best())


def best_location(storage: RunStorage) -> Path | str:
    """Folder or URL of the best checkpoint. Raises CheckpointError where there is none."""
    if isinstance(storage, ObjectStorage):
        return f"{storage.location}/{storage.best()}"
    return checkpoint.best_checkpoint(storage.folder)


def persistently(
    act: Callable[[], None], *, seconds: float, what: str, stop: threading.Event
) -> Exception | None:
    """Do something with storage; when it fails, try again for so long. The last failure, if any.

    stop: once it is set, nothing is tried again.
    """
    until, pause = time.monotonic() + seconds, FIRST_PAUSE_S
    while True:
        try:
            act()
            return None
        except _MISTAKES:
            raise
        except Exception as error:  # each store has its own errors
            left = until - time.monotonic()
            if left <= 0 or stop.is_set():
                return error
            logger.warning("%s: %s. Trying again for %.0f s.", what, _told(error), left)
            stop.wait(min(pause, left))
            pause = min(2 * pause, LONGEST_PAUSE_S)


def given_up(
    storage: RunStorage, name: str, *, last: str | None, seconds: float, cause: Exception
) -> StorageError:
    """What a user hears when a checkpoint could not be kept; `last` is the one before it."""
    good = f"The last good checkpoint is {last}." if last else "There is no checkpoint before it."
    return StorageError(
        f"The checkpoint {name} could not be kept in {storage.location}, tried for {seconds:.0f} s:"
        f" {_told(cause)}. {good} Mend the storage, then go on with --resume."
    )


def _told(error: Exception) -> str:
    return redact(f"{type(error).__name__}: {error}".rstrip(". "))
