"""The storage of a run: a folder or an object store, in which checkpoints are whole or absent.

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
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import fsspec
from fsspec.implementations.local import LocalFileSystem

from climlstm.config import Config
from climlstm.config.secrets import redact
from climlstm.data.run_data import user_cache
from climlstm.errors import CheckpointError, ClimLSTMError, ConfigError
from climlstm.files import delete_whole, write_whole
from climlstm.training import checkpoint
from climlstm.training.progress import JOURNAL, Record, parse_journal

logger = logging.getLogger(__name__)

COUNTS = "training.json"
"""The last file of a checkpoint that is copied to a store, and the first that is deleted there."""

FIRST_PAUSE_S, LONGEST_PAUSE_S = 1.0, 30.0
"""First and longest pause between two tries of storage; each is twice the one before."""


_MISTAKES = (ClimLSTMError, ArithmeticError, AttributeError, LookupError, NameError, TypeError)
"""Errors that no waiting mends."""


class RunStorage(ABC):
    """The checkpoints and records of one run, in a file system that fsspec knows."""

    def __init__(self, location: str, folder: Path, files: Any, root: str) -> None:
        """location: a path or a URL, for people.

        folder: on this host, for the first worker to write into.
        files, root: file system of fsspec, and where in it the run is.
        """
        self.location, self.folder, self.files, self.root = location, folder, files, root
        parent, _, name = root.rpartition("/")
        self._aside = f"{parent}/.{name}.replaced"

    @abstractmethod
    def names(self) -> list[str]:
        """Names of the checkpoints that count, oldest first."""

    @abstractmethod
    def losses(self) -> dict[str, float]:
        """Validation loss of each checkpoint that counts, oldest first."""

    @abstractmethod
    def fetch(self, name: str) -> Path:
        """A checkpoint as a folder on this host. Raises CheckpointError where it is damaged."""

    @abstractmethod
    def remove(self, name: str) -> None:
        """Delete a checkpoint, such that nothing half deleted counts."""

    def prove(self) -> None:
        """Raises ConfigError where nothing can be written."""
        with self._answering("written"):
            self.files.pipe_file(f"{self.root}/.written", b"climlstm")
            self.files.rm_file(f"{self.root}/.written")

    def save(self, name: str, write: Callable[[Path], None], *, keep: int) -> None:
        """Keep a checkpoint that `write` puts into a folder; the `keep` best and the latest stay.

        A run that was set aside for this one is deleted.
        """
        place = self.folder / name
        with write_whole(place, durable=True) as folder:
            folder.mkdir()
            write(folder)
            if place.exists():  # the same step again, after resuming from an earlier checkpoint
                delete_whole(place)
        self._upload(place)
        for old in checkpoint.outdated(self.names(), self.losses(), keep):
            self.remove(old)
        self.settle()

    def latest(self) -> Path | None:
        """Folder on this host with the last checkpoint that is whole, if there is one."""
        for name in reversed(self.names()):
            try:
                return self.fetch(name)
            except CheckpointError as error:
                logger.warning("leaving out a damaged checkpoint: %s", error)
        return None

    def best(self) -> str:
        """Name of the checkpoint with the lowest validation loss. Raises CheckpointError."""
        return checkpoint.best_of(self.losses(), self.location)

    def journal(self) -> list[Record]:
        """The records as others can read them."""
        try:
            text = self.files.cat_file(f"{self.root}/{JOURNAL}").decode("utf-8", "replace")
        except FileNotFoundError:
            return []
        return parse_journal(text)

    def publish_journal(self) -> None:  # noqa: B027 (in a folder there is nothing to do)
        """Let others read the records that are written so far."""

    def set_aside(self) -> None:
        """Put the run away until the one that replaces it has a checkpoint; see `settle`."""
        with self._answering("emptied"):
            self._move(self.root, self._aside)

    def settle(self) -> None:
        """Delete a run that was set aside if this one has a checkpoint; else put it back.

        In an object store a run moves file by file. Whenever that is cut off, a checkpoint that
        counts in both places belongs to the run that was set aside, and another call goes on.
        """
        with self._answering("put in order"):
            if not self.files.exists(self._aside):
                return
            if self._counts(self.root) - self._counts(self._aside):
                self._delete(self._aside)
            else:
                self._delete(self.root)
                self._move(self._aside, self.root)

    def _move(self, source: str, target: str) -> None:
        """Move the run from one place to another."""
        self.files.mv(source, target, recursive=True)

    def _counts(self, root: str) -> set[tuple[str, bytes]]:
        """Checkpoints that count, with the content that tells them from others of their name."""
        found = self.files.glob(f"{root}/step-*/{COUNTS}")
        return {(str(path).split("/")[-2], self.files.cat_file(path)) for path in found}

    def _upload(self, place: Path) -> None:  # noqa: B027 (likewise)
        """Copy a finished checkpoint to where others find it."""

    def _delete(self, place: str) -> None:
        if self.files.exists(place):
            self.files.rm(place, recursive=True)

    @contextmanager
    def _answering(self, what: str) -> Iterator[None]:
        """Turns whatever a store's client raises into a ConfigError: each has its own errors."""
        try:
            yield
        except ClimLSTMError:
            raise
        except Exception as error:
            raise ConfigError(
                f"cluster.storage: {self.location} cannot be {what}: {describe_error(error)}. "
                "Check the address, the permissions and, for a store, the credentials as its own "
                "tools want them."
            ) from error


class FolderStorage(RunStorage):
    """A run in a folder; workers on several hosts need it under one path."""

    def __init__(self, folder: Path) -> None:
        files = LocalFileSystem(auto_mkdir=True)
        super().__init__(str(folder), folder, files, str(folder.absolute()))

    def names(self) -> list[str]:
        return sorted(path.name for path in self.folder.glob("step-*"))

    def losses(self) -> dict[str, float]:
        return checkpoint.losses_in(self.folder)

    def fetch(self, name: str) -> Path:
        checkpoint.check(self.folder / name)
        return self.folder / name

    def remove(self, name: str) -> None:
        delete_whole(self.folder / name)


class ObjectStorage(RunStorage):
    """A run in an object store, written by way of a folder on this host."""

    def __init__(self, location: str, folder: Path) -> None:
        """Raises ConfigError where the store cannot be opened."""
        try:
            files, root = fsspec.core.url_to_fs(location, use_listings_cache=False)
        except (ImportError, ValueError) as error:
            raise ConfigError(
                f"cluster.storage: {location} cannot be opened: {error}. For s3:// and gs://, "
                "install climlstm[cloud]; otherwise name a folder that all hosts share."
            ) from error
        super().__init__(location, folder, files, root)

    def names(self) -> list[str]:
        with self._answering("listed"):
            found = self.files.glob(f"{self.root}/step-*/{COUNTS}")
        return sorted(str(path).split("/")[-2] for path in found)

    def losses(self) -> dict[str, float]:
        with self._answering("read"):
            written = {n: self.files.cat_file(f"{self.root}/{n}/{COUNTS}") for n in self.names()}
            return {name: float(json.loads(text)["valid_loss"]) for name, text in written.items()}

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

    def remove(self, name: str) -> None:
        for path in (f"{self.root}/{name}/{COUNTS}", f"{self.root}/{name}"):
            self._delete(path)
        shutil.rmtree(self.folder / name, ignore_errors=True)

    def _move(self, source: str, target: str) -> None:
        """Copy what makes checkpoints count last, and delete it first."""
        for path in sorted(self.files.find(source), key=lambda path: path.endswith(COUNTS)):
            self.files.cp_file(path, target + path.removeprefix(source))
        for path in self.files.glob(f"{source}/step-*/{COUNTS}"):
            self.files.rm_file(path)
        self._delete(source)

    def publish_journal(self) -> None:
        self.files.put_file(str(self.folder / JOURNAL), f"{self.root}/{JOURNAL}")

    def _upload(self, place: Path) -> None:
        target = f"{self.root}/{place.name}"
        for path in (f"{target}/{COUNTS}", target):  # the same step, written before
            self._delete(path)
        for file in sorted(place.iterdir(), key=lambda file: file.name == COUNTS):
            self.files.put_file(str(file), f"{target}/{file.name}")
        self.publish_journal()


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
    name = storage.best()
    at_url = isinstance(storage, ObjectStorage)
    return f"{storage.location}/{name}" if at_url else storage.folder / name


def retry(
    act: Callable[[], None], *, seconds: float, what: str, stop: threading.Event
) -> Exception | None:
    """Call `act`; where storage fails, call it again for so many seconds. The last failure, if any.

    what: the failure in words, for the log.
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
            logger.warning("%s: %s. Trying again for %.0f s.", what, describe_error(error), left)
            stop.wait(min(pause, left))
            pause = min(2 * pause, LONGEST_PAUSE_S)


def describe_error(error: Exception) -> str:
    """Kind and text of an error, without secrets."""
    return redact(f"{type(error).__name__}: {error}".rstrip(". "))
