"""Work whose result all processes of a machine need, and that one of them does."""

import fcntl
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

logger = logging.getLogger(__name__)


@contextmanager
def one_at_a_time(place: Path) -> Iterator[None]:
    """Inside, no other process is inside for the same place: it waits, and then finds the result.

    The lock is the operating system's, so one who dies lets go of it. On file systems that know
    no locks nobody waits, and the work may be done more than once.
    """
    place.parent.mkdir(parents=True, exist_ok=True)
    with open(place.with_name(f".{place.name}.lock"), "w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX)
        except OSError as error:
            logger.info("%s cannot be locked (%s), so others may do the same work", place, error)
        yield
