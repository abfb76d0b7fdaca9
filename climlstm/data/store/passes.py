"""Normalisation and sums of all values of a cube, in one pass over memory where C can be compiled.

A cube is decoded at gigabytes a second. NumPy makes a further pass over its values for every
operation, each of which takes up to half as long as decoding. Without a compiler NumPy is used,
bit for bit to the same effect in `normalise`.
"""

import ctypes
import functools

import numpy as np
from numpy.typing import NDArray

from climlstm.compiled import load_c

Fields = NDArray[np.float32]
"""(step, row, column)"""

Mask = NDArray[np.bool_]
"""(row, column)"""

SLAB_BYTES = 1 << 19
"""Bytes of values that NumPy treats at a time, so that they stay in the processor's cache."""


def normalise(
    values: Fields, out: Fields, *, mean: np.float32, std: np.float32, hidden: Mask | None
) -> bool:
    """Write (values - mean) / std into `out`, and return whether all of it is finite.

    hidden: (row, column), True where 0 is written whatever the value; None: nowhere.
    """
    library = _library()
    if library is None or not _side_by_side(out):
        return _normalise_by_numpy(values, out, mean=mean, std=std, hidden=hidden)
    given = values if _side_by_side(values) else np.ascontiguousarray(values, dtype="float32")
    sizes: tuple[int, ...] = given.shape
    strides = [stride // 4 for field in (given, out) for stride in field.strides[:2]]
    mask = None if hidden is None else np.ascontiguousarray(hidden, dtype="uint8")
    if mask is None and strides[1::2] == [sizes[2]] * 2:
        sizes = (sizes[0], 1, sizes[1] * sizes[2])  # planes without gaps are one long row
    return bool(
        library.normalise(
            *(_pointer(given), *map(ctypes.c_long, strides[:2])),
            *(_pointer(out), *map(ctypes.c_long, strides[2:]), *map(ctypes.c_long, sizes)),
            *(ctypes.c_float(float(mean)), ctypes.c_float(float(std))),
            None if mask is None else _pointer(mask),
        )
    )


def _normalise_by_numpy(
    values: Fields, out: Fields, *, mean: np.float32, std: np.float32, hidden: Mask | None
) -> bool:
    rows = max(1, SLAB_BYTES // (4 * out[0].size))
    finite = True
    for first in range(0, len(out), rows):
        part = out[first : first + rows]
        np.subtract(values[first : first + rows], mean, out=part)
        np.divide(part, std, out=part)
        if hidden is not None:
            part[:, hidden] = 0
        finite = finite and bool(np.isfinite(part).all())
    return finite


def sums(values: Fields, shift: np.float32) -> NDArray[np.float64]:
    """Sums (4, row) of values - shift, of its squares, of changes from each step to the next, and
    of their squares: in C within a row in float32, across steps in float64.

    Not finite where some value is not.
    """
    library = _library()
    if library is None:
        return _sums_by_numpy(values, shift)
    given = values if _side_by_side(values) else np.ascontiguousarray(values, dtype="float32")
    found = np.zeros((4, given.shape[1]))
    strides = [stride // 4 for stride in given.strides[:2]]
    numbers = map(ctypes.c_long, (*strides, *given.shape))
    library.moments(_pointer(given), *numbers, ctypes.c_float(float(shift)), _pointer(found))
    return found


def _sums_by_numpy(values: Fields, shift: np.float32) -> NDArray[np.float64]:
    with np.errstate(invalid="ignore", over="ignore"):
        of_values, of_changes = values - np.float32(shift), np.diff(values, axis=0)
        return np.stack(
            [
                (each.astype("float64") ** power).sum(axis=(0, 2))
                for each in (of_values, of_changes)
                for power in (1, 2)
            ]
        )


def _side_by_side(fields: NDArray) -> bool:
    """Whether C can read fields: float32, neighbouring columns without a gap."""
    return fields.dtype == np.float32 and fields.strides[-1] == 4


def _pointer(array: NDArray) -> ctypes.c_void_p:
    return ctypes.c_void_p(array.ctypes.data)


@functools.cache
def _library() -> ctypes.CDLL | None:
    return load_c(
        "climlstm.data.store", "passes.c", otherwise="reading a cube takes up to half as long again"
    )
