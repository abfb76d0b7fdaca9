"""The axes of one part of a source brought to those of another: names, order, rounding."""

from collections.abc import Iterator

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from climlstm.data.sources.axes import find_time
from climlstm.errors import DataError
from climlstm.grid.axes import candidates, find_horizontal, some

SAME_GRID = 0.01
"""Part of a grid spacing by which two axes may differ and count as one."""


class UnfitError(Exception):
    """Why a part or variable cannot be joined."""


def time_dim(part: xr.Dataset) -> str | None:
    """The dimension of time, also where its numbers are not decoded."""
    try:
        return str(find_time(part).dims[0])
    except DataError:
        names = [name for name in candidates(part, "time") if name in part.dims]
        return names[0] if names else None


def align(part: xr.Dataset, first: xr.Dataset, time: str | None) -> xr.Dataset:
    """A part with the names, order and values of the axes of the first one."""
    if part is first:
        return part
    for theirs, ours in _renamings(part, first, time):
        part = part.drop_vars(ours, errors="ignore").rename({theirs: ours})
    longitude = _horizontal(first, "longitude")
    for name, index in first.indexes.items():
        if name == time or name not in part.indexes or part.indexes[name].dtype.kind not in "iuf":
            continue
        wanted = index.to_numpy().astype("float64")
        order, found = _order(part[name].values, wanted, turn=name == longitude)
        spacing = np.abs(np.diff(wanted)).min() if wanted.size > 1 else 1.0
        if found.size == wanted.size:
            off = np.abs(found - wanted).max()
            if off <= SAME_GRID * spacing:
                part = part if order is None else part.isel({name: order})
                part = part.assign_coords({name: first[name].variable})
            elif name in (longitude, _horizontal(first, "latitude")) and not _apart(found, wanted):
                raise UnfitError(
                    f"is on another grid: '{name}' differs by up to {off:g}, with points "
                    f"{spacing:g} apart ({some(found)}; expected {some(wanted)})"
                )
    return part


def _renamings(part: xr.Dataset, first: xr.Dataset, time: str | None) -> Iterator[tuple[str, str]]:
    """Names of axes in a part that the first part calls otherwise, with the first part's names."""
    for kind in ("latitude", "longitude"):
        ours, theirs = _horizontal(first, kind), _horizontal(part, kind)
        if ours and theirs and ours != theirs and ours in first.indexes and theirs in part.indexes:
            yield theirs, ours
    theirs = time_dim(part)
    if time and theirs and theirs != time and time in first.indexes and theirs in part.indexes:
        yield theirs, time


def _horizontal(part: xr.Dataset, kind: str) -> str | None:
    try:
        return str(find_horizontal(part, kind).name)
    except DataError:
        return None


def _order(
    found: NDArray, wanted: NDArray, *, turn: bool
) -> tuple[slice | NDArray[np.intp] | None, NDArray[np.float64]]:
    """The order in which values run as wanted, and the values; turn: they count round a circle."""
    found = found.astype("float64")
    if turn and found.size == wanted.size and found.size > 1 and abs(found[0] - wanted[0]) > 1e-3:
        half = (wanted[1] - wanted[0]) / 2
        turned = (found - wanted.min() + abs(half)) % 360 + wanted.min() - abs(half)
        order = np.argsort(turned)
        order = order if half > 0 else order[::-1]
        return order, turned[order]
    if found.size > 1 and wanted.size > 1 and (found[0] < found[-1]) != (wanted[0] < wanted[-1]):
        return slice(None, None, -1), found[::-1]
    return None, found


def _apart(found: NDArray, wanted: NDArray) -> bool:
    """Whether two axes share no stretch, as tiles of one grid."""
    return bool(found.min() > wanted.max() or found.max() < wanted.min())
