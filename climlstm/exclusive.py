"""One process at a time: whoever writes a run, a forecast or a cube keeps others out of it."""

import fcntl
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from climlstm.errors import BusyError

logger = logging.getLogger(__name__)


@contextmanager
def exclusive(place: Path, what: str) -> Iterator[None]:
    """While the block runs, no other process that asks can have `place`, a file or a folder.

    The lock is a file beside it, held through the operating system, so that it ends with the
    process, however that ends. File systems without locks let everybody in.
    what: the thing and what is done with it, for people: "The run 'x' is being trained".
    Raises BusyError at once where another process has it.
    """
    path = place.parent / f".{place.name}.lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    handle = _lock(path, what)
    try:
        yield
    finally:
        if handle is not None:
            path.unlink(missing_ok=True)
            os.close(handle)


def _lock(path: Path, what: str) -> int | None:
    while True:
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            os.close(handle)
            raise BusyError(
                f"{what} by another process just now. Wait for its end, stop it, or choose "
                f"another name or place. (It holds the lock {path}.)"
            ) from error
        except OSError as error:
            logger.info("%s cannot be locked: %s", path, error)
            os.close(handle)
            return None
        if _is_there(path, handle):
            return handle
        os.close(handle)  # its owner has just deleted it


def _is_there(path: Path, handle: int) -> bool:
    try:
        return os.path.samestat(os.stat(path), os.fstat(handle))
    except FileNotFoundError:
        return False
