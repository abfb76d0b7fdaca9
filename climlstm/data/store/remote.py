"""Objects of remote stores, fetched many at a time into local files while they are needed.

Requests in flight, not threads, hide the latency: all objects that the next blocks need are
requested at once, and are decoded from local files like those of a local store.
"""

import asyncio
import contextlib
import hashlib
import json
import logging
import os
import random
import shutil
import tempfile
import threading
import weakref
from collections.abc import Sequence
from concurrent.futures import Future, InvalidStateError
from dataclasses import dataclass, field
from pathlib import Path

import zarr
from zarr.core.buffer import default_buffer_prototype
from zarr.core.sync import _get_loop
from zarr.storage import LocalStore, MemoryStore, ObjectStore, ZipStore

from climlstm.config.secrets import redact
from climlstm.data.store.direct import direct_store
from climlstm.errors import DataError
from climlstm.files import claim_folder, lock, write_whole

logger = logging.getLogger(__name__)

REQUESTS = 64
"""Requests in flight. With 50 ms to the first byte, 10 suffice for objects of
2 MB on a fast line; small objects need more."""

TRIES = 6
"""Tries of a request, with pauses that double from PAUSE seconds on: half a minute in all."""
PAUSE = 0.5

READING = ".reading-"
"""Prefix of the names of folders with objects that are being read."""


def is_remote(array: zarr.Array) -> bool:
    """Whether the objects of an array have to be fetched."""
    return not isinstance(array.store, LocalStore | MemoryStore | ZipStore)


class Mirror:
    """Local copies of the objects of one remote array, while somebody reads them.

    cache: with it, objects stay on disk for the next epoch, and for other processes.
    """

    def __init__(self, array: zarr.Array, cache: "Cache | None" = None):
        self._store = direct_store(array)
        self._place = redact(str(array.store))
        self._prefix = f"{array.path}/" if array.path else ""
        self._shelf = None if cache is None else cache.shelf(array)
        parent = Path(tempfile.gettempdir()) if cache is None else cache.folder
        self.folder, handle = claim_folder(parent, READING)
        """Holds the objects that are here, under their keys."""
        self._deleted = weakref.finalize(self, _delete, self.folder, handle)
        self._readers: dict[str, int] = {}
        self._arrivals: dict[str, Future[None]] = {}
        self._lock = threading.Lock()
        self._limit = asyncio.Semaphore(REQUESTS)
        self._fetching: set[Future[None]] = set()

    def acquire(self, keys: Sequence[str]) -> list["Future[None]"]:
        """Begin to fetch objects, in this order; each future ends when its object is here.

        Release each key as often as it is acquired.
        """
        new = []
        with self._lock:
            for key in keys:
                self._readers[key] = self._readers.get(key, 0) + 1
                if key not in self._arrivals:
                    self._arrivals[key] = Future()
                    new.append(key)
            arrivals = [self._arrivals[key] for key in keys]
        if new:  # in the loop that the store belongs to, which no thread waits for
            fetching = asyncio.run_coroutine_threadsafe(self._fetch_all(new), _get_loop())
            self._fetching.add(fetching)
            fetching.add_done_callback(self._fetching.discard)
        return arrivals

    def release(self, keys: Sequence[str]) -> None:
        """Let go of objects; those that nobody else reads are deleted.

        A task that still waits for one, where another task failed, gets an error.
        """
        with self._lock:
            for key in keys:
                self._readers[key] -= 1
                if self._readers[key] == 0:
                    del self._readers[key]
                    _end(self._arrivals.pop(key), RuntimeError(f"'{key}' is not read any more"))
                    (self.folder / key).unlink(missing_ok=True)

    def close(self) -> None:
        """Delete all local copies that are not in a cache; also done when the mirror is lost."""
        for fetching in list(self._fetching):
            fetching.cancel()
        with self._lock:
            waited_for = list(self._arrivals.values())
        for arrival in waited_for:
            _end(arrival, RuntimeError("the store was closed while it was read"))
        self._deleted()

    @property
    def library(self) -> str:
        """Name of the library that makes the requests."""
        return "obstore" if isinstance(self._store, ObjectStore) else "zarr's own store"

    async def _fetch_all(self, keys: Sequence[str]) -> None:
        await asyncio.gather(*[self._fetch(key) for key in keys])

    async def _fetch(self, key: str) -> None:
        with self._lock:
            arrival = self._arrivals.get(key)
        if arrival is None:  # released before its turn came
            return
        place = self.folder / key
        try:
            async with self._limit:
                if self._shelf is None or not self._shelf.link(key, place):
                    content = await self._get(key)
                    await asyncio.to_thread(self._keep, key, place, content)
        except Exception as error:  # raised again where the object is waited for
            _end(arrival, error)
        else:
            _end(arrival, None)
        with self._lock:
            if key not in self._readers:  # released while it was on its way
                place.unlink(missing_ok=True)

    async def _get(self, key: str) -> memoryview | None:
        """An object, or None where the store has none: a chunk of fill values."""
        for attempt in range(TRIES):
            try:
                found = await self._store.get(
                    self._prefix + key, prototype=default_buffer_prototype()
                )
            except Exception as error:  # each library has errors of its own for a lost connection
                cause = redact(f"{type(error).__name__}: {error}")
                if attempt + 1 == TRIES:
                    raise DataError(
                        f"'{self._prefix}{key}' of {self._place} cannot be read; the "
                        f"last of {TRIES} tries gave {cause}. Check the network and the "
                        "credentials, then resume."
                    ) from error
                pause = PAUSE * 2**attempt * random.uniform(0.5, 1.5)
                logger.warning("%s%s: %s; again in %.1f s", self._prefix, key, cause, pause)
                await asyncio.sleep(pause)
            else:
                return None if found is None else found.as_numpy_array().data
        raise AssertionError("unreachable")

    def _keep(self, key: str, place: Path, content: memoryview | None) -> None:
        if content is None:
            return
        if self._shelf is None:  # nobody looks for it before it is here
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(content)
        else:
            self._shelf.put(key, place, content)


def _end(arrival: Future[None], error: Exception | None) -> None:
    """End a future with a result or an error, unless closing has ended it before."""
    with contextlib.suppress(InvalidStateError):
        if error is None:
            arrival.set_result(None)
        else:
            arrival.set_exception(error)


def _delete(folder: Path, handle: int) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    os.close(handle)


@dataclass(frozen=True, eq=False)
class Cache:
    """A folder of objects up to a size, shared by any number of processes on its machine.

    Objects are written whole, under names that identify store, array and key. A reader has a hard
    link of its own, so it keeps an object that is evicted meanwhile.
    """

    folder: Path
    limit: int
    """Bytes."""
    _added: list[int] = field(default_factory=lambda: [0])

    def shelf(self, array: zarr.Array) -> "Shelf":
        """The place of one array."""
        self.folder.mkdir(parents=True, exist_ok=True)
        identity = json.dumps(
            [str(array.store), array.path, array.metadata.to_dict()], sort_keys=True, default=str
        )
        return Shelf(self, self.folder / hashlib.sha256(identity.encode()).hexdigest()[:24])

    def keep_within_limit(self, added: int) -> None:
        """Evict the objects that were not used for the longest time, where much was added."""
        self._added[0] += added
        if self._added[0] < self.limit // 200:
            return
        with lock(self.folder / "cache"):
            self._added[0] = 0
            self._evict()

    def _evict(self) -> None:
        found = []
        for place in self.folder.glob("[0-9a-f]*/**/*"):
            with contextlib.suppress(FileNotFoundError):
                if place.is_file():
                    found.append((place.stat().st_mtime_ns, place.stat().st_size, place))
        excess = sum(size for _, size, _ in found) - int(0.9 * self.limit)
        for _, size, place in sorted(found):
            if excess <= 0:
                return
            place.unlink(missing_ok=True)
            excess -= size


@dataclass(frozen=True, eq=False)
class Shelf:
    """Objects of one array in a cache."""

    cache: Cache
    folder: Path

    def link(self, key: str, place: Path) -> bool:
        """Give a reader an object under a name of its own; False if it is not here."""
        place.parent.mkdir(parents=True, exist_ok=True)
        try:
            os.link(self.folder / key, place)
        except FileNotFoundError:
            return False
        except FileExistsError:
            return True
        with contextlib.suppress(FileNotFoundError):
            os.utime(self.folder / key)  # used last now
        return True

    def put(self, key: str, place: Path, content: memoryview) -> None:
        """Keep an object, and give it to a reader."""
        with write_whole(place) as written:
            written.write_bytes(content)
        kept = self.folder / key
        kept.parent.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(FileExistsError):
            os.link(place, kept)
        self.cache.keep_within_limit(len(content))
