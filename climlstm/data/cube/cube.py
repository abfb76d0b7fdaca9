"""From a source to a cube: the same data under our names, units and order, lazily through Dask."""

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from functools import cached_property
from typing import Any

import dask
import dask.array as da
import numpy as np
import xarray as xr
from dask.base import tokenize
from numpy.typing import NDArray

from climlstm.config import DataConfig
from climlstm.config.secrets import redact
from climlstm.data.cube.accumulation import AS_STORED, over_steps
from climlstm.data.cube.chosen import channel_in
from climlstm.data.cube.conversions import DIRECTION, DepthOfRate
from climlstm.data.cube.forcing import NEEDS_PLACE
from climlstm.data.cube.matching import find_fields, make_recipe
from climlstm.data.cube.recipes import Array, ChannelRecipe, CubeCells, Field
from climlstm.data.sources.axes import Axes, find_axes, select_cells
from climlstm.data.sources.origin import AxisChunks, chunks_along, run_lengths, token_of
from climlstm.data.sources.regridding import processing
from climlstm.data.sources.times import bounds_of, select_times
from climlstm.errors import ClimLSTMError, DataError
from climlstm.grid import Grid, Plane, kind_of
from climlstm.grid.axes import AxisPoints, as_slice
from climlstm.grid.winds import is_turned, partner
from climlstm.plugins.channels import Channel

logger = logging.getLogger(__name__)

DIMS = ("time", "latitude", "longitude")

MAX_TASKS = 100_000
"""Tasks, about, that a channel of the cube has for Dask; of longer records a task reads more."""


def build_cube(source: xr.Dataset, data: DataConfig) -> xr.Dataset:
    """The cube that a run asks for: `state` and `static` of a source, by its other `data` keys.

    One float32 variable a channel (time, latitude, longitude), static ones without time; latitude
    north to south, longitude eastward and monotonic, CF attributes, our units. Nothing is read:
    Dask will, with one task a chunk and channel, chunks in time as in the source (several together
    beyond MAX_TASKS). Values that are missing stay NaN, steps that are missing stay gaps.
    Raises DataError for whatever does not fit, with the line of the catalog that puts it right.

    >>> import climlstm
    >>> source = climlstm.open_source("catalog.yaml", "atmosphere")
    >>> climlstm.build_cube(source, climlstm.load_config("run.yaml").data)["msl"].dims
    ('time', 'latitude', 'longitude')
    """
    return plan_cube(source, data).cube


def plan_cube(source: xr.Dataset, data: DataConfig) -> "CubePlan":
    """Plan of the values of a source that make up the cube; see `build_cube`."""
    axes = find_axes(source)
    cells = CubeCells(*select_cells(axes, data.region), coarsen=data.coarsen)
    _check_whole_blocks(cells)
    _check_place(axes, data)
    names = (*data.from_source, *data.static)
    channels = [channel_in(source, name, data.step) for name in names]
    _check_kinds(channels, data)
    _check_pairs(axes, channels)
    bounds = bounds_of(source, axes.time) if data.step and data.step.months else None
    times = select_times(axes.time, data.step, bounds)  # which are in order from here on
    source = over_steps(source, axes, data.step, _methods(source, axes, channels, data))
    recipes = tuple(make_recipe(source, axes, cells, each) for each in channels)
    for used in (used for each in recipes for used in each.fields):
        if used.name == DIRECTION and AS_STORED.format(used.variable) in source:
            raise DataError(
                f"'{used.variable}' is a direction, which has no mean over {data.step}. Make "
                "components of the wind first, and average these."
            )
    return CubePlan(
        source=_only(source, {field.variable for recipe in recipes for field in recipe.fields}),
        axes=axes,
        times=times,
        cells=cells,
        recipes=recipes,
    )


def _methods(
    source: xr.Dataset, axes: Axes, channels: Sequence[Channel], data: DataConfig
) -> dict[str, str | None]:
    """How each stored variable with time is put together over steps; None: as its file says."""
    methods: dict[str, str | None] = {}
    for each in channels:
        wanted = data.channels[each.name].over_step if each.name in data.channels else None
        if isinstance(each.variable.derive, DepthOfRate):
            wanted = "mean"
        for used in find_fields(source, axes, each):
            if axes.dims[0] in dict(used.positions):  # never changes
                continue
            if methods.setdefault(used.variable, wanted) != wanted:
                raise DataError(
                    f"'{used.variable}' of the source is needed for '{each.name}' and for another "
                    f"channel, and is put together over steps in one way. Set data.channels."
                    f"{each.name}.over_step to that of the other one, or leave out both."
                )
    return methods


def _only(source: xr.Dataset, variables: set[str]) -> xr.Dataset:
    """The source without variables that the cube does not use, so that workers do not get them."""
    kept = variables | {AS_STORED.format(name) for name in variables}
    return source.drop_vars([name for name in source.data_vars if name not in kept])


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
    others: Mapping[str, xr.DataArray] = field(default_factory=dict)
    """Channels of other sources at the times of this one, lazy; see `data.others`."""

    def __getstate__(self) -> dict[str, Any]:
        """The fields alone: a worker that receives the plan builds the cube itself."""
        return {each.name: getattr(self, each.name) for each in fields(self)}

    @property
    def grid(self) -> Grid:
        """Where the cube's rows and columns lie."""
        return self.cells.grid

    @cached_property
    def _is_turned(self) -> bool:
        return self.axes.placed is not None and is_turned(self.grid)

    @cached_property
    def cube(self) -> xr.Dataset:
        """The plan as a lazy Dataset."""
        cube = xr.Dataset(
            coords={
                "time": ("time", self.times.values, {"standard_name": "time", "axis": "T"}),
                **self.grid.coordinates(),
            },
            attrs={"Conventions": "CF-1.11"} | processing(self.source),
        )
        for recipe in self.recipes:
            dims = self.grid.dims if recipe.channel.variable.static else ("time", *self.grid.dims)
            attributes = _attributes(recipe.channel, turned=self._is_turned)
            stored = recipe.fields[0].variable
            if AS_STORED.format(stored) in self.source:
                attributes["cell_methods"] = self.source[stored].attrs["cell_methods"]
            if self.grid.crs is not None:
                attributes["grid_mapping"] = "crs"
            cube[recipe.channel.name] = (dims, self.lazy(recipe), attributes)
        for name, array in self.others.items():
            cube[name] = (("time", *self.grid.dims), array.data, array.attrs)
        return cube

    def lazy(self, recipe: ChannelRecipe) -> da.Array:
        """One channel (time, latitude, longitude); static: (latitude, longitude)."""
        values = _ChannelValues(self, recipe)
        return da.from_array(
            values,
            chunks=values.sizes,
            name=f"{recipe.channel.name}-{values.token}",
            asarray=False,
            fancy=False,
            meta=np.empty((0,) * values.ndim, dtype="float32"),
        )

    def read(
        self, recipes: Sequence[ChannelRecipe], steps: slice | NDArray[np.int64]
    ) -> list[Array]:
        """Values (step, H, W) of channels, static ones (H, W), through xarray.

        steps: of the cube, increasing. What several channels are made of is read once.
        """
        fields = dict.fromkeys(field for recipe in recipes for field in recipe.fields)
        stored = {field: self.stored(field, steps) for field in fields}
        times = self.times.values[steps]
        return [
            recipe.read([stored[field] for field in recipe.fields], times) for recipe in recipes
        ]

    def stored(self, field: Field, steps: slice | NDArray[np.int64] = slice(None)) -> NDArray:
        """Values of a field as the source has them: (step, row_range, column_range)."""
        variable = self.source[field.variable].variable
        positions: dict[Any, Any] = dict(field.positions)
        time, latitude, longitude = self.axes.dims
        positions[latitude] = self.cells.row_range
        positions[longitude] = self.cells.column_range
        order = [latitude, longitude]
        if time in variable.dims and time not in positions:
            positions[time] = as_slice(self.times.indices[steps])
            order = [time, latitude, longitude]
        return variable.isel(positions).compute(scheduler=dask.get).transpose(*order).values

    def chunks(self, recipe: ChannelRecipe) -> AxisChunks:
        """The stored chunks of a channel along the times of the source."""
        return chunks_along(self.source[recipe.fields[0].variable].variable, self.axes.dims[0])


class _ChannelValues:
    """A channel as Dask sees it: values that are read when a task asks for a range of them."""

    def __init__(self, plan: CubePlan, recipe: ChannelRecipe):
        plane = plan.grid.shape
        self._plan, self._recipe = plan, recipe
        self.shape = plane if recipe.channel.variable.static else (plan.times.values.size, *plane)
        self.ndim, self.dtype = len(self.shape), np.dtype("float32")

    def __getitem__(self, key: tuple[slice, ...]) -> Array:
        steps = key[0] if self.ndim == 3 else slice(None)
        return self._plan.read([self._recipe], steps)[0][..., key[-2], key[-1]]

    @property
    def sizes(self) -> tuple[int | tuple[int, ...], ...]:
        """Sizes of the ranges that one task reads, by dimension; one number for equal ones."""
        if self.ndim == 2:
            return self.shape
        numbers = self._plan.chunks(self._recipe).holding(self._plan.times.indices)
        sizes = run_lengths(numbers // -(-numbers.size // MAX_TASKS))
        equal = len(set(sizes[:-1])) <= 1 and sizes[-1] <= sizes[0]
        return (sizes[0] if equal else sizes, *self.shape[-2:])

    @property
    def token(self) -> str:
        """Digest of all that the values follow from."""
        plan, variables = self._plan, {field.variable for field in self._recipe.fields}
        stored = [token_of(plan.source[name].variable) for name in sorted(variables)]
        return str(tokenize(stored, self._recipe, plan.axes.dims, plan.times.indices))


def dataset_of(cube: CubePlan | xr.Dataset) -> xr.Dataset:
    """The lazy dataset of a cube that is given by its plan or as it is."""
    return cube.cube if isinstance(cube, CubePlan) else cube


def _check_place(axes: Axes, data: DataConfig) -> None:
    """Refuse what needs a place on Earth for data that have none."""
    needing = [name for name in data.forcing if name in NEEDS_PLACE]
    if needing and data.step.months:
        raise DataError(
            f"'{needing[0]}' under 'forcing' is that of a moment, but steps of {data.step} have "
            "none. Leave it out; use 'season'."
        )
    if needing and axes.placed is None and kind_of(axes.latitude) is Plane:
        raise DataError(
            f"The source is a plane without geography, but '{needing[0]}' under 'forcing' follows "
            "from the place on Earth. Leave it out; 'season' follows from the date alone."
        )
    if data.region is not None and kind_of(axes.latitude) is Plane:
        logger.warning(
            "The source is a plane without geography: 'region' counts its rows south of 0 and its "
            "columns east of 0, in thousandths of a degree."
        )


def _check_pairs(axes: Axes, channels: list[Channel]) -> None:
    """Refuse one component of a wind alone, where files will have both as east and north."""
    names = {each.name for each in channels}
    for each in channels:
        alone = each.variable.component is not None and partner(each.name) not in names
        if DIRECTION in each.variable.inputs and axes.placed and is_turned(axes.placed.grid):
            raise DataError(
                f"The source has no '{each.name}', and from '{DIRECTION}' it is made only where "
                "rows run eastward. Add the components of the wind to the source."
            )
        if alone and axes.placed is not None and is_turned(axes.placed.grid):
            raise DataError(
                f"The rows of the grid do not run eastward, so that '{each.name}' is written and "
                f"scored together with '{partner(each.name)}' alone. Add it to data.state, or "
                "leave out both."
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
            role = "output" if name in data.output else "state"
            role = "prescribed" if name in data.prescribed else role
            wrong, right = (role, "static") if static else ("static", "state")
            raise DataError(
                f"'{name}' stands under '{wrong}', but {'never changes' if static else 'varies'}. "
                f"Move it to '{right}' in the run file."
            )


def _attributes(each: Channel, *, turned: bool) -> dict[str, str]:
    """Attributes of a channel.

    turned: whether winds follow rows and columns that do not run east and north.
    """
    variable = each.variable
    where = "" if each.level is None else f" at {each.level:g} hPa"
    attributes = {"units": variable.units, "long_name": variable.long_name + where}
    if variable.standard_name:
        attributes["standard_name"] = variable.standard_name
    if turned and variable.component is not None:
        axis = "x" if variable.component == "eastward" else "y"
        attributes["standard_name"] = f"{axis}_wind"
        attributes["long_name"] = attributes["long_name"].replace(
            variable.component, f"along {axis}"
        )
    return attributes
