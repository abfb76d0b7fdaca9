"""What is done to every value of a cube, in one pass over memory where C can be compiled.

A cube is decoded at gigabytes a second: each further pass over its values, as NumPy makes one for
every operation, costs as much as half of that. Without a compiler NumPy does the same, bit for bit
in `normalise`.
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
"""Values that NumPy treats at a time, so that they stay in the processor's cache."""


def normalise(
    values: Fields, out: Fields, *, mean: np.float32, std: np.float32, hidden: Mask | None
) -> bool:
    """Write (values - mean) / std into `out`; whether all of it is finite.

    hidden: (row, column), True where to write 0 whatever the value; nowhere, if None.
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
    """By row, sums (4, row) of values - shift and of its squares, and of changes from each step to
    the next and of their squares: within a row in float32, across rows and steps in float64.

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
    steps, rows, columns = values.shape
    size = max(1, SLAB_BYTES // (4 * rows * columns))
    work = np.empty((min(size, steps), rows, columns), dtype="float32")
    ones = np.ones(columns, dtype="float32")
    found = np.zeros((4, rows))
    with np.errstate(invalid="ignore", over="ignore"):
        for first in range(0, steps, size):
            slab = values[first : first + size]
            before = values[max(first - 1, 0) : first + len(slab) - 1]
            for which, (of, minus) in enumerate(
                ((slab, np.full_like(slab[:1], shift)), (slab[len(slab) - len(before) :], before))
            ):
                deviation = np.subtract(of, minus, out=work[: len(of)])
                for square, other in enumerate((ones, deviation)):
                    total = np.vecdot(deviation, other).sum(axis=0, dtype="float64")
                    found[2 * which + square] += total
    return found


def _side_by_side(fields: NDArray) -> bool:
    """Whether C can read it: float32, neighbouring columns without a gap."""
    return fields.dtype == np.float32 and fields.strides[-1] == 4


def _pointer(array: NDArray) -> ctypes.c_void_p:
    return ctypes.c_void_p(array.ctypes.data)


@functools.cache
def _library() -> ctypes.CDLL | None:
    return load_c(
        "climlstm.data.store", "passes.c", otherwise="reading a cube takes up to half as long again"
    )
