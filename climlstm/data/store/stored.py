"""Arrays of a Zarr store, read chunk by chunk into memory that is used again.

A Dask task that goes through xarray and zarr-python costs half a millisecond and fresh memory for
each chunk. `zarrs` decodes straight into a given array; where it does not know a codec,
zarr-python reads.
"""

import itertools
import json
import logging
import math
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
import zarr
from numpy.typing import NDArray
from zarr.storage import LocalStore

from climlstm.data.sources.origin import origin_of
from climlstm.data.store.remote import Cache, Mirror, is_remote

logger = logging.getLogger(__name__)

MAX_FETCHED_BYTES = 1 << 28
"""Largest remote object (decoded chunk or shard) that is fetched as a whole; zarr-python reads
parts of larger ones."""

Span = tuple[int, int]
"""Half-open range of positions."""

Spans = Sequence[Sequence[Span]]
"""Increasing ranges on each dimension of an array, which follow one another in what is read."""


@dataclass(frozen=True, eq=False)
class StoredArray:
    """A Zarr array, and how a lazy variable is cut from it."""

    array: zarr.Array
    origin: tuple[int, ...]
    """Position at which the variable begins on each dimension of the array."""
    axes: tuple[int, ...]
    """The array's dimensions that the variable has, in its order; it has one entry of others."""
    unpack: Callable[[NDArray], NDArray] | None
    """Turns stored values into the variable's (CF packing, fill values); None: the same."""
    reader: "ChunkReader"

    @property
    def is_remote(self) -> bool:
        """Whether chunks are fetched before they are read."""
        return isinstance(self.reader, FetchingReader)


@dataclass(frozen=True, eq=False)
class Fetched:
    """Objects of a remote store that are on their way, or here."""

    mirror: Mirror
    keys: tuple[str, ...]
    arrivals: tuple["Future[None]", ...]

    def wait(self) -> None:
        """Wait until all are here. Raises DataError for one that cannot be read."""
        for arrival in self.arrivals:
            arrival.result()

    def release(self) -> None:
        """Say that they are not needed any more."""
        self.mirror.release(self.keys)


def find_stored(variable: xr.DataArray, cache: Cache | None = None) -> StoredArray | None:
    """The Zarr array behind a variable that was only cut out or renamed since it was opened.

    cache: for objects of a remote store.
    None for other formats, for computed values, and for encodings that only xarray decodes.
    """
    origin = origin_of(variable)
    if origin is None or not origin.is_zarr or variable.encoding.get("_Unsigned"):
        return None
    try:
        array = origin.open()
    except Exception as error:  # each kind of storage has errors of its own
        logger.info("'%s' is read through Dask: %r", variable.name, error)
        return None
    axes = tuple(origin.dims.index(dim) for dim in variable.dims)
    unpack = _unpacking(variable.encoding, array.dtype, variable.dtype)
    return StoredArray(array, origin.first, axes, unpack, make_reader(array, cache))


def _unpacking(
    encoding: Mapping[Any, Any], stored: np.dtype, decoded: np.dtype
) -> Callable[[NDArray], NDArray] | None:
    """The function that decodes as xarray does: fill values become NaN, then scale and offset."""
    stated = [encoding[key] for key in ("_FillValue", "missing_value") if key in encoding]
    fills = [fill for each in stated for fill in np.atleast_1d(each)]
    scale, offset = encoding.get("scale_factor"), encoding.get("add_offset")
    if stored == decoded and scale is None and offset is None and np.isnan(fills).all():
        return None

    def unpack(values: NDArray) -> NDArray:
        unpacked = np.array(values, dtype=decoded)
        for fill in fills:
            unpacked[values == fill] = np.nan
        if scale is not None:
            unpacked *= scale
        if offset is not None:
            unpacked += offset
        return unpacked

    return unpack


class ChunkReader:
    """Reads and decodes chunks of one array through zarr-python's own pipeline."""

    name = "zarr-python"

    def __init__(self, array: zarr.Array):
        self.array = array

    def fetch(self, spans: Spans) -> Fetched | None:
        """Begin to fetch the remote objects that `read` needs; None if it needs none."""
        return None

    def read(self, spans: Spans, out: NDArray) -> None:
        """Fill `out` (C-contiguous, of the array's dtype) with stored values.

        What `fetch` returned has to be here.
        """
        for part in itertools.product(*[list(_with_places(each)) for each in spans]):
            here = tuple(slice(*span) for span, _ in part)
            there = tuple(slice(first, first + stop - start) for (start, stop), first in part)
            out[there] = self.array[here]

    def close(self) -> None:
        """Delete what was fetched; nothing can be read afterwards."""


def _with_places(spans: Sequence[Span]) -> Iterator[tuple[Span, int]]:
    """Each range with the position at which it begins in what is read."""
    first = 0
    for start, stop in spans:
        yield (start, stop), first
        first += stop - start


class ZarrsReader(ChunkReader):
    """Reads and decodes chunks of an array of a local store through `zarrs`, without asyncio."""

    name = "zarrs"

    def __init__(self, array: zarr.Array, store: LocalStore, prefix: str):
        from zarrs._internal import ChunkItem, CodecPipelineImpl

        super().__init__(array)
        self._item = ChunkItem
        self._pipeline = CodecPipelineImpl(
            json.dumps(array.metadata.to_dict()),
            store_config=store,
            validate_checksums=True,
            num_threads=1,
        )
        self._outer = tuple(array.shards or array.chunks)
        self._prefix = prefix

    def read(self, spans: Spans, out: NDArray) -> None:
        items = [
            self._item(
                key=self._prefix + key,
                chunk_subset=inside,
                chunk_shape=self._outer,
                subset=place,
                shape=out.shape,
            )
            for key, inside, place in self._objects(spans)
        ]
        self._pipeline.retrieve_chunks_and_apply_index(items, out)

    def _objects(self, spans: Spans) -> Iterator[tuple[str, list[slice], list[slice]]]:
        """Key of each stored object, the range within it, and the range in what is read."""
        sizes = zip(spans, self._outer, strict=True)
        pieces = [list(_pieces(parts, size)) for parts, size in sizes]
        for part in itertools.product(*pieces):
            key = self.array.metadata.encode_chunk_key(tuple(p[0] for p in part))
            yield key, [p[1] for p in part], [p[2] for p in part]


def _pieces(spans: Sequence[Span], size: int) -> Iterator[tuple[int, slice, slice]]:
    """Chunk, range within it, range within what is read, along one dimension."""
    for (start, stop), first in _with_places(spans):
        for chunk in range(start // size, math.ceil(stop / size)):
            low, high = max(start, chunk * size), min(stop, (chunk + 1) * size)
            inside = slice(low - chunk * size, high - chunk * size)
            yield chunk, inside, slice(first + low - start, first + high - start)


class FetchingReader(ZarrsReader):
    """Fetches objects of a remote store, then reads the local copies through `zarrs`."""

    def __init__(self, array: zarr.Array, cache: Cache | None):
        self._mirror = Mirror(array, cache)
        self.name = f"zarrs, fetched ahead by {self._mirror.library}"
        super().__init__(array, LocalStore(self._mirror.folder), "")

    def fetch(self, spans: Spans) -> Fetched:
        keys = tuple(dict.fromkeys(key for key, _, _ in self._objects(spans)))
        return Fetched(self._mirror, keys, tuple(self._mirror.acquire(keys)))

    def close(self) -> None:
        self._mirror.close()


def make_reader(array: zarr.Array, cache: Cache | None = None) -> ChunkReader:
    """The fastest reader of an array that gives what zarr-python gives.

    cache: for objects of a remote store.
    """
    object_bytes = array.dtype.itemsize * math.prod(array.shards or array.chunks)
    reader: ZarrsReader
    try:
        if not array.dtype.isnative:
            raise ValueError("bytes in the other order")
        if isinstance(array.store, LocalStore):
            reader = ZarrsReader(array, array.store, f"{array.path}/" if array.path else "")
        elif is_remote(array) and object_bytes <= MAX_FETCHED_BYTES:
            reader = FetchingReader(array, cache)
        else:
            return ChunkReader(array)
        same = _gives_the_same(reader)
    except (ImportError, AttributeError, TypeError, ValueError, RuntimeError) as error:
        logger.info("'%s' is decoded by zarr-python: zarrs cannot (%s)", array.path, error)
        return ChunkReader(array)
    return reader if same else ChunkReader(array)


def _gives_the_same(reader: ZarrsReader) -> bool:
    """Whether the first value is what zarr-python reads."""
    array = reader.array
    corner = [[(0, min(1, size))] for size in array.shape]
    first = np.empty((1,) * array.ndim, array.dtype)
    fetched = reader.fetch(corner)
    try:
        if fetched is not None:
            fetched.wait()
        reader.read(corner, first)
    finally:
        if fetched is not None:
            fetched.release()
    return np.array_equal(first, array[(slice(0, 1),) * array.ndim], equal_nan=True)


def write_object(array: zarr.Array, values: NDArray, place: Path) -> None:
    """Encode one whole shard (or chunk, without shards) of an array into a file of its own.

    values: in the shape of a shard.
    """
    with tempfile.TemporaryDirectory(dir=place.parent) as aside:
        alike = zarr.create_array(
            aside,
            shape=values.shape,
            chunks=array.chunks,
            shards=array.shards,
            dtype=array.dtype,
            compressors=array.compressors,
            fill_value=array.fill_value,
            config={"write_empty_chunks": True},
        )
        alike[:] = values
        Path(aside, alike.metadata.encode_chunk_key((0,) * array.ndim)).replace(place)
