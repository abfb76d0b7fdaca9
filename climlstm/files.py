"""Files and folders that appear whole or not at all, and one lock for what only one may write."""

import fcntl
import logging
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from climlstm.errors import BusyError, ClimLSTMError, OutputError

logger = logging.getLogger(__name__)

OWNER = ".alive"
"""File in a temporary folder that its owner keeps locked, so that it counts as in use."""


@contextmanager
def write_whole(target: Path, *, durable: bool = False) -> Iterator[Path]:
    """Yield a path for a new file or folder, which replaces `target` where the block succeeds.

    It has the name of `target`, in a temporary folder beside it. Where the block fails, `target` is
    as before. What a killed process left behind goes with the next write of the same target.

    durable: whether what was written shall survive a power failure, which takes time.
    Raises OSError where nothing can be written, also where `target` is a folder that holds files.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    with temporary_folder(target.parent, f".{target.name}.part-") as folder:
        written = folder / target.name
        yield written
        if durable:
            to_disk(written)
        os.replace(written, target)
        if durable:
            _sync(target.parent)


def write_text(target: Path, text: str) -> None:
    """Write a file in UTF-8, whole or not at all. Raises OSError."""
    with write_whole(target) as written:
        written.write_text(text, encoding="utf-8")


@contextmanager
def writing(target: Path) -> Iterator[None]:
    """Turns an OSError of the block into an OutputError that names `target` and says what to do."""
    try:
        yield
    except ClimLSTMError:
        raise
    except OSError as error:
        raise OutputError(
            f"{target.name} cannot be written to '{target.parent}': {error}. Make room there, "
            "get permission to write, or name another place."
        ) from error


@contextmanager
def temporary_folder(parent: Path, prefix: str) -> Iterator[Path]:
    """A new folder in `parent`, deleted at the end, or by the next one where the process dies."""
    folder, handle = claim_folder(parent, prefix)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(handle)


def claim_folder(parent: Path, prefix: str) -> tuple[Path, int]:
    """A new folder whose name begins with `prefix`, and an open file that marks it as in use.

    Folders of the same prefix whose process has ended are deleted first.
    """
    for left in [name for name in os.listdir(parent) if name.startswith(prefix)]:
        try:
            handle = _lock(parent / left / OWNER, wait=False)
        except OSError:  # in use, or deleted by another process just now
            continue
        if handle is not None:
            shutil.rmtree(parent / left, ignore_errors=True)
            os.close(handle)
    while True:
        folder = Path(tempfile.mkdtemp(prefix=prefix, dir=parent))
        try:
            handle = _lock(folder / OWNER, wait=True)
        except FileNotFoundError:  # taken for an abandoned one before it was locked
            continue
        return folder, os.open(folder, os.O_RDONLY) if handle is None else handle


def delete_whole(folder: Path) -> None:
    """Delete a folder that at no moment is there with a part of its files missing."""
    with temporary_folder(folder.parent, ".deleting-") as aside:
        os.replace(folder, aside / folder.name)


def to_disk(path: Path) -> None:
    """Wait until a file, or a folder with all that is in it, is on disk."""
    for inside in path.rglob("*"):
        _sync(inside)
    _sync(path)


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def lock(place: Path, busy: str | None = None) -> Iterator[None]:
    """Keep other processes that lock `place`, a file or folder, out while the block runs.

    The lock is a file beside it, held through the operating system, so that it ends with the
    process, however that ends. File systems without locks let everybody in.

    busy: what is being done there, for people: "The run 'x' is being trained". With it, BusyError
        is raised at once where another process has the lock; without it, this one waits.
    Raises OutputError where the lock cannot be written.
    """
    path = place.parent / f".{place.name}.lock"
    with writing(place):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            handle = _lock(path, wait=busy is None)
        except BlockingIOError as error:
            raise BusyError(
                f"{busy} by another process just now. Wait for its end, stop it, or choose "
                f"another name or place. (It holds the lock {path}.)"
            ) from error
    try:
        yield
    finally:
        if handle is not None:
            path.unlink(missing_ok=True)
            os.close(handle)


def _lock(path: Path, *, wait: bool) -> int | None:
    """An open file that is locked; None where the file system has no locks.

    Raises BlockingIOError where another process has the lock and this one is not to wait.
    """
    while True:
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            if os.path.samestat(os.stat(path), os.fstat(handle)):
                return handle
        except FileNotFoundError:  # its owner has just deleted it
            pass
        except BlockingIOError:
            os.close(handle)
            raise
        except OSError as error:
            logger.info("%s cannot be locked: %s", path, error)
            os.close(handle)
            return None
        except BaseException:
            os.close(handle)
            raise
        os.close(handle)
