"""How a channel is made of stored values: cut out, converted, derived, averaged."""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from climlstm.grid import Grid, LatLon
from climlstm.grid.axes import AxisPoints, as_slice
from climlstm.grid.winds import turned
from climlstm.plugins import Transform
from climlstm.plugins.channels import Channel
from climlstm.plugins.running import running, unexpected

Array = NDArray[np.float32]


@dataclass(frozen=True)
class Field:
    """One variable of a source at one level: where it lies, and what its stored values mean.

    physical = scale · stored + offset, except where stored is one of `missing`.
    """

    name: str
    """Short name of our variable."""
    variable: str
    """Its name in the source."""
    positions: tuple[tuple[Hashable, int], ...] = ()
    """Position on each dimension besides time, latitude and longitude."""
    scale: float = 1.0
    offset: float = 0.0
    missing: tuple[float, ...] = ()

    def physical(self, stored: NDArray) -> Array:
        """Stored values in our units; the array itself where nothing has to be done."""
        plain = self.scale == 1.0 and self.offset == 0.0 and not self.missing
        if plain and stored.dtype == np.float32:
            return stored
        # 32-bit integers and float64 do not fit into float32 before they are scaled
        short = stored.dtype.itemsize <= 2 or stored.dtype.kind + str(stored.dtype.itemsize) == "f4"
        working = np.float32 if short else np.float64
        values = np.multiply(stored, working(self.scale), dtype=working)
        if self.offset:
            values += working(self.offset)
        for fill in self.missing:
            values[_is_fill(stored, fill)] = np.nan
        return values.astype(np.float32, copy=False)


def _is_fill(stored: NDArray, fill: float) -> NDArray[np.bool_]:
    """Fill values are often written with fewer digits than stored: 9.9692e36."""
    if stored.dtype.kind in "iu":
        return stored == fill
    return np.abs(stored - fill) <= (1e-5 if abs(fill) > 1e6 else 1e-6) * abs(fill)


@dataclass(frozen=True)
class CubeCells:
    """Cells of a source's grid that make up a cube: rows north to south, columns eastward."""

    rows: AxisPoints
    columns: AxisPoints
    fine: Grid
    """Grid of these rows and columns."""
    coarsen: int = 1
    """Number of cells in each direction that are averaged into one."""

    def take(self, values: NDArray) -> NDArray:
        """The cells in their order, from (..., row_range, column_range); a view if possible."""
        rows, columns = self._places
        return values[..., rows, :][..., columns]

    @cached_property
    def _places(self) -> tuple[slice | NDArray[np.intp], ...]:
        return tuple(
            as_slice(chosen.indices - chosen.indices.min()) for chosen in (self.rows, self.columns)
        )

    @property
    def row_range(self) -> slice:
        """The rows of the source that have to be read."""
        return _range(self.rows.indices)

    @property
    def column_range(self) -> slice:
        return _range(self.columns.indices)

    def average(self, values: Array) -> Array:
        """Area-weighted means over blocks of cells; missing where any cell of a block is."""
        n = self.coarsen
        if n == 1:
            return values
        *rest, height, width = values.shape
        blocks = values.reshape(*rest, height // n, n, width // n, n)
        letters = "hr" if self._weights.ndim == 2 else "hrwc"
        return np.einsum(f"...hrwc,{letters}->...hw", blocks, self._weights)

    @cached_property
    def _weights(self) -> Array:
        """Share of each cell in the mean of its block (row of blocks, row within, …); of each row
        alone, where the cells of a row are alike."""
        n = self.coarsen
        if isinstance(self.fine, LatLon):
            rows = self.fine.row_area.reshape(-1, n)
            return (rows / rows.sum(axis=1, keepdims=True) / n).astype("float32")
        height, width = self.fine.shape
        cells = self.fine.area.reshape(height // n, n, width // n, n)
        whole = cells.sum(axis=(1, 3), keepdims=True)
        return np.divide(cells, whole, out=np.full_like(cells, n**-2), where=whole > 0).astype("f4")

    @cached_property
    def grid(self) -> Grid:
        """Grid of the cube: of the blocks."""
        return self.fine.coarsened(self.coarsen)


def _range(indices: NDArray[np.intp]) -> slice:
    return slice(int(indices.min()), int(indices.max()) + 1)


@dataclass(frozen=True)
class ChannelRecipe:
    """How one channel is made of a source's fields: cut out, converted, derived, averaged."""

    channel: Channel
    fields: tuple[Field, ...]
    cells: CubeCells

    def read(self, stored: Sequence[NDArray], times: NDArray[np.datetime64] | None = None) -> Array:
        """The channel (time, latitude, longitude) from the stored values of each field.

        stored: (time, row_range, column_range) of `cells`, for each field; without time if static.
        times: needed by a derived variable, whose function may want to know them.
        """
        parts = [
            field.physical(self.cells.take(values))
            for field, values in zip(self.fields, stored, strict=True)
        ]
        if self.channel.variable.derive is not None:
            values = self._derive(parts, times)
        elif len(parts) == 2:
            values = self._along_grid(*parts)
        else:
            values = parts[0]
        return self.cells.average(values)

    def _along_grid(self, own: Array, other: Array) -> Array:
        """A wind along the rows or columns, from components towards east and north."""
        angle = self.cells.fine.angle.astype("float32")
        if self.channel.variable.component == "eastward":
            return turned(own, other, angle)[0]
        return turned(other, own, angle)[1]

    def _derive(self, parts: list[Array], times: NDArray[np.datetime64] | None) -> Array:
        variable = self.channel.variable
        assert variable.derive is not None
        dims = ("time", *self.cells.fine.dims)[-parts[0].ndim :]
        coords: dict[str, Any] = dict(self.cells.fine.coordinates())
        if times is not None and "time" in dims:
            coords["time"] = times
        inputs = xr.Dataset(
            {field.name: (dims, part) for field, part in zip(self.fields, parts, strict=True)},
            coords=coords,
        )
        with running("variables", variable.name, variable, "in derive()"):
            derived = variable.derive(inputs)
            values = np.asarray(derived.values)
        same = set(derived.dims) == set(dims) and values.size == parts[0].size
        if not same or values.dtype.kind not in "fiub":
            raise unexpected(
                "variables", variable.name, variable,
                came=f"{values.dtype} {dict(derived.sizes)}",
                expected=f"float32 {dict(zip(dims, parts[0].shape, strict=True))}",
            )  # fmt: skip
        known = all(np.isfinite(part).all() for part in parts) and values.dtype.kind == "f"
        if known and values.size and not np.isfinite(values).any():
            raise unexpected(
                "variables", variable.name, variable, came="no finite value", expected="numbers"
            )
        return np.asarray(derived.transpose(*dims).values, dtype="float32")


@dataclass(frozen=True)
class TransformedRecipe(ChannelRecipe):
    """A recipe for the transformed values of a channel, which are normalised."""

    transform: Transform

    def read(self, stored: Sequence[NDArray], times: NDArray[np.datetime64] | None = None) -> Array:
        """The transformed channel (time, latitude, longitude); arguments as of a plain recipe."""
        return apply_transform(super().read(stored, times), self.transform)


def apply_transform(values: Array, transform: Transform) -> Array:
    """Transformed values, of any shape."""
    import torch  # takes seconds, and a cube without transforms does without

    tensor = torch.from_numpy(np.ascontiguousarray(values))
    return np.asarray(transform.forward(tensor).numpy(), dtype="float32")
