"""Arrays of a Zarr store behind lazy variables, read chunk by chunk into memory that is used again.

A Dask task that goes through xarray and zarr-python costs half a millisecond and fresh memory for
each chunk. `zarrs` decodes straight into a given array; this module asks it directly, and
zarr-python where `zarrs` does not know a codec. It is the only one that looks behind xarray.
"""

import itertools
import json
import logging
import math
import tempfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
import zarr
from numpy.typing import NDArray
from zarr.storage import LocalStore

from climlstm.data.store.remote import Cache, Mirror, is_remote

logger = logging.getLogger(__name__)

LARGEST = 1 << 28
"""Decoded bytes of a remote object, chunk or shard, that is fetched as a whole; of larger ones
zarr-python fetches parts."""

Span = tuple[int, int]
"""Half-open range of positions."""


@dataclass(frozen=True, eq=False)
class StoredArray:
    """A Zarr array, and how a lazy variable is cut from it."""

    array: zarr.Array
    origin: tuple[int, ...]
    """Where the variable begins in the array, on each of the array's dimensions."""
    axes: tuple[int, ...]
    """The array's dimensions that the variable has, in its order; it has one entry of others."""
    functions: tuple[Callable[[NDArray], NDArray], ...]
    """What xarray applies to stored values when it decodes them, in order."""
    decode: "Decode"

    @cached_property
    def chunks(self) -> tuple[int, ...]:
        """Steps of decoding on each dimension of the array: inner chunks of shards."""
        return tuple(self.array.chunks)

    @property
    def decoder(self) -> str:
        """What decodes its chunks: 'zarrs' or 'zarr-python'."""
        return self.decode.name

    @property
    def is_remote(self) -> bool:
        """Whether `fetch` has something to fetch."""
        return isinstance(self.decode, DecodeFetched)

    def fetch(self, spans: Sequence[Sequence[Span]]) -> "Fetched | None":
        """Have the objects of a remote store fetched that `read` needs; None if it needs none."""
        return self.decode.fetch(spans)

    def read(self, spans: Sequence[Sequence[Span]], out: NDArray) -> None:
        """Fill `out` with stored values; what `fetch` gave has to be here.

        spans: for each dimension of the array, increasing ranges that follow one another in `out`.
        out: C-contiguous, of the array's dtype.
        """
        self.decode(spans, out)


@dataclass(frozen=True, eq=False)
class Fetched:
    """Objects of a remote store that are on their way, or here."""

    mirror: Mirror
    keys: tuple[str, ...]
    arrivals: tuple["Future[None]", ...]

    def wait(self) -> None:
        """Until all are here. Raises DataError for one that cannot be had."""
        for arrival in self.arrivals:
            arrival.result()

    def release(self) -> None:
        """They are not needed any more."""
        self.mirror.release(self.keys)


def find_stored(variable: xr.DataArray, cache: Cache | None = None) -> StoredArray | None:
    """The Zarr array behind a variable that xarray opened, if it was only cut from it since.

    cache: for objects of a remote store.
    None for other formats, for values that something was computed from, and where nothing
    certain can be said.
    """
    try:
        layers = variable.data.dask.layers
        roots = [key for key in layers if key.startswith("original-")]
        if len(roots) != 1:
            return None
        opened = roots[0].removeprefix("original-")
        cut = [key for key in layers if key not in (roots[0], opened)]
        if not all(key.startswith("getitem-") for key in cut):
            return None
        array, functions = _unwrap(next(iter(layers[roots[0]].values())))
        if _is_plain(variable):
            functions = ()
        placed = _place(variable, array, is_cut=bool(cut))
    except (AttributeError, KeyError, TypeError, ValueError, IndexError) as error:
        logger.debug("nothing known of how '%s' is stored: %r", variable.name, error)
        return None
    if placed is None:
        return None
    return StoredArray(array, *placed, functions, make_decode(array, cache))


def _unwrap(adapter: Any) -> tuple[zarr.Array, tuple[Callable[[NDArray], NDArray], ...]]:
    """The Zarr array inside xarray's lazily indexed one, and the functions that decode values."""
    functions = []
    inner = adapter
    while not isinstance(inner, zarr.Array):
        key = getattr(inner, "key", None)
        if key is not None and any(part != slice(None) for part in key.tuple):
            raise ValueError("indexed before Dask")
        function = getattr(inner, "func", None)
        if function is not None:
            functions.append(function)
        inner = inner.array if hasattr(inner, "array") else inner._array
    return inner, tuple(reversed(functions))


def _is_plain(variable: xr.DataArray) -> bool:
    """Whether decoding leaves stored values as they are, since only NaN stands for missing ones."""
    encoding = variable.encoding
    packed = "scale_factor" in encoding or "add_offset" in encoding
    fills = [encoding[key] for key in ("_FillValue", "missing_value") if key in encoding]
    same = encoding.get("dtype") == variable.dtype and variable.dtype.kind == "f"
    return same and not packed and bool(np.isnan(fills).all())


def _place(
    variable: xr.DataArray, array: zarr.Array, *, is_cut: bool
) -> tuple[tuple[int, ...], tuple[int, ...]] | None:
    """`origin` and `axes` of a StoredArray, by the coordinates where the variable was cut."""
    if not is_cut:
        whole = variable.shape == array.shape
        return ((0,) * array.ndim, tuple(range(array.ndim))) if whole else None
    parent = array.path.rpartition("/")[0]
    group = zarr.open_group(array.store, path=parent, mode="r")
    source = xr.open_zarr(
        array.store,
        group=parent or None,
        chunks=None,
        decode_timedelta=False,
        consolidated=group.metadata.consolidated_metadata is not None,
    )
    stored = source[array.path.rpartition("/")[2]]
    kept = [dim for dim in stored.dims if dim not in variable.coords or variable[dim].ndim]
    if len(kept) != variable.ndim:
        return None
    origin = []
    for dim in stored.dims:
        name = variable.dims[kept.index(dim)] if dim in kept else dim
        wanted = np.atleast_1d(variable[name].values)
        whole = wanted.size == stored.sizes[dim]
        first = 0 if whole else int(np.flatnonzero(stored[dim].values == wanted[0])[0])
        found = stored[dim].values[first : first + wanted.size]
        if not whole and not np.array_equal(found, wanted):
            return None
        origin.append(first)
    return tuple(origin), tuple(stored.dims.index(dim) for dim in kept)


class Decode:
    """Reads and decodes chunks of one array through zarr-python's own pipeline."""

    name = "zarr-python"

    def __init__(self, array: zarr.Array):
        self.array = array

    def fetch(self, spans: Sequence[Sequence[Span]]) -> Fetched | None:
        return None

    def close(self) -> None:
        pass

    def __call__(self, spans: Sequence[Sequence[Span]], out: NDArray) -> None:
        places = [list(_places(parts)) for parts in spans]
        for part in itertools.product(*places):
            here = tuple(slice(*span) for span, _ in part)
            there = tuple(slice(first, first + stop - start) for (start, stop), first in part)
            out[there] = self.array[here]


def _places(spans: Sequence[Span]) -> Iterator[tuple[Span, int]]:
    """Each range with the position at which it begins in what is read."""
    first = 0
    for start, stop in spans:
        yield (start, stop), first
        first += stop - start


class DecodeByZarrs(Decode):
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

    def __call__(self, spans: Sequence[Sequence[Span]], out: NDArray) -> None:
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

    def _objects(
        self, spans: Sequence[Sequence[Span]]
    ) -> Iterator[tuple[str, list[slice], list[slice]]]:
        """Key of each stored object, the range within it, and the range in what is read."""
        sizes = zip(spans, self._outer, strict=True)
        pieces = [list(_pieces(parts, size)) for parts, size in sizes]
        for part in itertools.product(*pieces):
            key = self.array.metadata.encode_chunk_key(tuple(p[0] for p in part))
            yield key, [p[1] for p in part], [p[2] for p in part]


class DecodeFetched(DecodeByZarrs):
    """The same for a remote store, whose objects are fetched before."""

    name = "zarrs, fetched ahead"

    def __init__(self, array: zarr.Array, cache: Cache | None):
        self._mirror = Mirror(array, cache)
        self.name = f"zarrs, fetched ahead by {self._mirror.library}"
        super().__init__(array, LocalStore(self._mirror.folder), "")

    def fetch(self, spans: Sequence[Sequence[Span]]) -> Fetched:
        keys = tuple(dict.fromkeys(key for key, _, _ in self._objects(spans)))
        return Fetched(self._mirror, keys, tuple(self._mirror.acquire(keys)))

    def close(self) -> None:
        self._mirror.close()


def _pieces(spans: Sequence[Span], size: int) -> Iterator[tuple[int, slice, slice]]:
    """Chunk, range within it, range within what is read, along one dimension."""
    for (start, stop), first in _places(spans):
        for chunk in range(start // size, math.ceil(stop / size)):
            low, high = max(start, chunk * size), min(stop, (chunk + 1) * size)
            inside = slice(low - chunk * size, high - chunk * size)
            yield chunk, inside, slice(first + low - start, first + high - start)


def make_decode(array: zarr.Array, cache: Cache | None = None) -> Decode:
    """The fastest way to decode an array that gives what zarr-python gives.

    cache: for objects of a remote store.
    """
    object_bytes = array.dtype.itemsize * math.prod(array.shards or array.chunks)
    decode: DecodeByZarrs
    try:
        if not array.dtype.isnative:
            raise ValueError("bytes in the other order")
        if isinstance(array.store, LocalStore):
            prefix = f"{array.path}/" if array.path else ""
            decode = DecodeByZarrs(array, array.store, prefix)
        elif is_remote(array) and object_bytes <= LARGEST:
            decode = DecodeFetched(array, cache)
        else:
            return Decode(array)
        same = _gives_the_same(decode)
    except (ImportError, AttributeError, TypeError, ValueError, RuntimeError) as error:
        logger.info("'%s' is decoded by zarr-python: zarrs cannot (%s)", array.path, error)
        return Decode(array)
    return decode if same else Decode(array)


def _gives_the_same(decode: DecodeByZarrs) -> bool:
    """Whether the first value is what zarr-python reads."""
    array = decode.array
    corner = [[(0, min(1, size))] for size in array.shape]
    first = np.empty((1,) * array.ndim, array.dtype)
    fetched = decode.fetch(corner)
    try:
        if fetched is not None:
            fetched.wait()
        decode(corner, first)
    finally:
        if fetched is not None:
            fetched.release()
    return np.array_equal(first, array[(slice(0, 1),) * array.ndim], equal_nan=True)


def write_object(array: zarr.Array, values: NDArray, place: Path) -> None:
    """Encode one whole shard (or chunk, without shards) of an array into a file of its own.

    values: of the shape of a shard, C-contiguous.
    """
    place.parent.mkdir(parents=True, exist_ok=True)
    whole = [slice(0, size) for size in values.shape]
    try:
        from zarrs._internal import ChunkItem, CodecPipelineImpl

        pipeline = CodecPipelineImpl(
            json.dumps(array.metadata.to_dict()),
            store_config=LocalStore(place.parent),
            num_threads=1,
        )
        item = ChunkItem(
            key=place.name,
            chunk_subset=whole,
            chunk_shape=values.shape,
            subset=whole,
            shape=values.shape,
        )
        pipeline.store_chunks_with_indices([item], values, True)
    except (ImportError, AttributeError, TypeError, ValueError, RuntimeError) as error:
        logger.info("'%s' is encoded by zarr-python: zarrs cannot (%s)", array.path, error)
        _write_by_zarr(array, values, place)


def _write_by_zarr(array: zarr.Array, values: NDArray, place: Path) -> None:
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
