"""From a source to a cube: the same data under our names, units and order, lazily through Dask."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any

import dask.array as da
import numpy as np
import xarray as xr
from numpy.typing import NDArray

from climlstm.config import DataConfig
from climlstm.config.secrets import redact
from climlstm.data.cube.accumulation import over_steps
from climlstm.data.cube.forcing import NEEDS_PLACE
from climlstm.data.cube.matching import find_fields, make_recipe
from climlstm.data.cube.recipes import Array, ChannelRecipe, CubeCells, Field
from climlstm.data.sources.axes import Axes, find_axes, select_latitude, select_longitude
from climlstm.data.sources.times import select_times
from climlstm.errors import ClimLSTMError, DataError
from climlstm.grid import Grid, Plane, kind_of
from climlstm.grid.axes import AxisPoints, as_slice
from climlstm.plugins.channels import Channel, channel

logger = logging.getLogger(__name__)

DIMS = ("time", "latitude", "longitude")


def build_cube(source: xr.Dataset, data: DataConfig) -> xr.Dataset:
    """The cube that a run asks for: `state` and `static` of a source, by its other `data` keys.

    One float32 variable a channel (time, latitude, longitude), static ones without time; latitude
    north to south, longitude eastward and monotonic, CF attributes, our units. Nothing is read:
    Dask will, with one task a chunk and channel, chunks in time as in the source. Values that are
    missing stay NaN, steps that are missing stay gaps.
    Raises DataError for whatever does not fit, with the line of the catalog that puts it right.
    """
    return plan_cube(source, data).cube


def plan_cube(source: xr.Dataset, data: DataConfig) -> "CubePlan":
    """Plan of the values of a source that make up the cube; see `build_cube`."""
    axes = find_axes(source)
    cells = CubeCells(
        rows=select_latitude(axes.latitude, data.region),
        columns=select_longitude(axes.longitude, data.region),
        coarsen=data.coarsen,
    )
    _check_whole_blocks(cells)
    _check_place(axes, data)
    channels = [channel(name) for name in (*data.state, *data.static)]
    _check_kinds(channels, data)
    times = select_times(axes.time, data.step)  # which are in order and defined from here on
    fields = [f for each in channels for f in find_fields(source, axes, each)]
    names = [field.variable for field in fields if axes.dims[0] not in dict(field.positions)]
    source = over_steps(source, axes, data.step, names)
    return CubePlan(
        source=source,
        axes=axes,
        times=times,
        cells=cells,
        recipes=tuple(make_recipe(source, axes, cells, each) for each in channels),
    )


@contextmanager
def explain_read_errors(what: str) -> Iterator[None]:
    """Raises DataError where stored values cannot be read or decoded, whatever the storage says."""
    try:
        yield
    except ClimLSTMError:
        raise
    except (OSError, ValueError, RuntimeError) as error:
        cause = f"{type(error).__name__}: {redact(str(error)[:300])}"
        raise DataError(
            f"{what} cannot be read: {cause}. A file of the source is damaged or out of reach; "
            "copy it anew, or choose periods without it."
        ) from error


@dataclass(frozen=True)
class CubePlan:
    """Plan of the values of a source that make up a cube; nothing is read until it is asked for.

    `cube` reads through Dask. Whoever has stored values in memory passes them to the recipes'
    `read`, to the same effect.
    """

    source: xr.Dataset
    axes: Axes
    times: AxisPoints
    cells: CubeCells
    recipes: tuple[ChannelRecipe, ...]

    def __getstate__(self) -> dict[str, Any]:
        """The fields alone: a worker that receives the plan builds the cube itself."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    @property
    def grid(self) -> Grid:
        """Where the cube's rows and columns lie."""
        kind = kind_of(self.axes.latitude)
        return kind(self.cells.latitude, self.cells.longitude)

    @cached_property
    def cube(self) -> xr.Dataset:
        """The plan as a lazy Dataset."""
        cube = xr.Dataset(
            coords={
                "time": ("time", self.times.values, {"standard_name": "time", "axis": "T"}),
                **self.grid.coordinates(),
            },
            attrs={"Conventions": "CF-1.11"},
        )
        for recipe in self.recipes:
            dims = DIMS[1:] if recipe.channel.variable.static else DIMS
            cube[recipe.channel.name] = (dims, self.lazy(recipe), _attributes(recipe.channel))
        return cube

    def lazy(self, recipe: ChannelRecipe) -> da.Array:
        """One channel (time, latitude, longitude); static: (latitude, longitude)."""
        stored = [self.stored(field) for field in recipe.fields]
        stored = [array.rechunk(stored[0].chunks) for array in stored]
        plane = (self.cells.latitude.size, self.cells.longitude.size)
        chunks = (*stored[0].chunks[:-2], *((size,) for size in plane))
        form = {
            "dtype": "float32",
            "chunks": chunks,
            "meta": np.empty((0,) * len(chunks), dtype="float32"),
        }
        if recipe.channel.variable.derive is None or recipe.channel.variable.static:
            return da.map_blocks(_read, *stored, recipe=recipe, **form)
        times = da.from_array(self.times.values, chunks=(chunks[0],))[:, None, None]
        return da.map_blocks(_read_at, times, *stored, recipe=recipe, **form)

    def stored(self, field: Field) -> da.Array:
        """Values of a field as the source has them, lazy: (time, row_range, column_range)."""
        variable = self.source[field.variable].variable
        positions: dict[Any, Any] = dict(field.positions)
        time, latitude, longitude = self.axes.dims
        positions[latitude] = self.cells.row_range
        positions[longitude] = self.cells.column_range
        order = [latitude, longitude]
        if time in variable.dims and time not in positions:
            positions[time] = as_slice(self.times.indices)
            order = [time, latitude, longitude]
        if variable.chunks is None:
            variable = variable.chunk({dim: "auto" if dim == time else -1 for dim in variable.dims})
        return variable.isel(positions).transpose(*order).data.rechunk({-2: -1, -1: -1})


def dataset_of(cube: CubePlan | xr.Dataset) -> xr.Dataset:
    """The lazy dataset of a cube that is given by its plan or as it is."""
    return cube.cube if isinstance(cube, CubePlan) else cube


def _read(*stored: NDArray, recipe: ChannelRecipe) -> Array:
    return recipe.read(stored)


def _read_at(times: NDArray[np.datetime64], *stored: NDArray, recipe: ChannelRecipe) -> Array:
    return recipe.read(stored, times.ravel())


def _check_place(axes: Axes, data: DataConfig) -> None:
    """Refuse what needs a place on Earth for data that have none."""
    needing = [name for name in data.forcing if name in NEEDS_PLACE]
    if needing and kind_of(axes.latitude) is Plane:
        raise DataError(
            f"The source is a plane without geography, but '{needing[0]}' under 'forcing' follows "
            "from the place on Earth. Leave it out; 'season' follows from the date alone."
        )
    if data.region is not None and kind_of(axes.latitude) is Plane:
        logger.warning(
            "The source is a plane without geography: 'region' counts its rows south of 0 and its "
            "columns east of 0, in thousandths of a degree."
        )


def _check_whole_blocks(cells: CubeCells) -> None:
    n = cells.coarsen
    for size, what, edges in (
        (cells.rows.values.size, "latitude rows", cells.rows.values),
        (cells.columns.values.size, "longitude columns", cells.columns.values),
    ):
        if size % n:
            fitting = [k for k in range(2, min(size, 33)) if size % k == 0]
            raise DataError(
                f"{size} {what} ({edges[0]:g}..{edges[-1]:g}) do not make whole blocks of {n} "
                f"cells. Set 'region' so that {size - size % n} are left, or 'coarsen' to "
                f"{', '.join(map(str, fitting)) or '1'}."
            )


def _check_kinds(channels: list[Channel], data: DataConfig) -> None:
    for each in channels:
        name, static = each.name, each.variable.static
        if static != (name in data.static):
            wrong, right = ("state", "static") if static else ("static", "state")
            raise DataError(
                f"'{name}' stands under '{wrong}', but {'never changes' if static else 'varies'}. "
                f"Move it to '{right}' in the run file."
            )


def _attributes(each: Channel) -> dict[str, str]:
    variable = each.variable
    where = "" if each.level is None else f" at {each.level:g} hPa"
    attributes = {"units": variable.units, "long_name": variable.long_name + where}
    return attributes | (
        {"standard_name": variable.standard_name} if variable.standard_name else {}
    )
