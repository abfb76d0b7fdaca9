"""Declarations: facts about a source that its files leave out, under `metadata` of its entry."""

import logging
import warnings
from typing import Any, Literal

import numpy as np
import pandas as pd
import xarray as xr
from pydantic import Field

from climlstm.config import Section
from climlstm.data.sources.axes import find_time
from climlstm.data.sources.origin import as_dask
from climlstm.data.sources.regridding import Regridding
from climlstm.data.sources.times import dates_in_numbers
from climlstm.data.sources.units import is_time_reference
from climlstm.errors import CatalogError, nearest
from climlstm.grid import Plane
from climlstm.grid.axes import ROTATED, candidates
from climlstm.grid.mappings import from_text
from climlstm.grid.projected import mapping

TIME_AXES = ("time", "timestep", "step", "t")
"""Where a time axis of plain numbers is looked for, unless it is declared."""

FREE_RUNNING = "climlstm_free_running"
"""Attribute of sources that are declared as such."""

logger = logging.getLogger(__name__)


class VariableDeclaration(Section):
    """A variable of the files."""

    name: str | None = None
    """Our name for it (`t2m`, or `u` with a level); its own, if left out."""
    level: float | None = None
    """Pressure in hPa, for a variable at one level whose file does not say which."""
    units: str | None = None
    """Its unit; overrides the one in the file."""
    trusted: bool = False
    """Its values are right, though the audit would not expect them."""
    valid: tuple[float, ...] = ()
    """Stored values that the file states as missing but that are values: {valid: [0]}."""
    missing: tuple[float, ...] = ()
    """Values that stand for missing ones, besides those that the file states."""
    accumulated: Literal["step", "day", "never"] | None = None
    """Values are sums since the time before, since 00 UTC of each day, or never sums."""


class Metadata(Section):
    """Facts about a source: for people, and for the reader where files leave something out."""

    licence: str | None = None
    attribution: str | None = None
    """Text that must be printed where results are published."""
    homepage: str | None = None
    grid: str | None = None
    span: str | None = None
    step: str | None = None
    size: str | None = None
    contents: tuple[str, ...] = ()
    """Channels that it has, or some of them."""

    plane: tuple[str, str] | None = None
    """Rows and columns of data without geography, such as videos: their dimensions."""
    crs: str | None = None
    """Projection of rows and columns where files leave it out: a code, PROJ text, or WKT."""
    regrid: Regridding | None = None
    """Another grid that the source is brought to."""
    winds: Literal["grid", "earth"] | None = None
    """Directions that winds follow, where files do not say: rows and columns, or east and north."""
    axes: dict[Literal["time", "latitude", "longitude", "level"], str] = Field(default_factory=dict)
    """Names of axes that are not recognised by themselves."""
    time_units: str | None = None
    """'hours since 1996-01-05', for a time axis of plain numbers."""
    period: tuple[str, str] | None = None
    """First and last date (or the names of attributes that hold them) of the times with data,
    where the axis goes on beyond them."""
    select: dict[str, int | float | str] = Field(default_factory=dict)
    """One entry of further dimensions, by label or else by position: {number: 0}."""
    combine: tuple[str, ...] = ()
    """Dimensions whose entries complete each other, the first going first; `expver` always."""
    variables: dict[str, VariableDeclaration] = Field(default_factory=dict)
    """Variables by their names in the files."""
    free_running: bool = False
    """Whether its weather is that of a model which runs freely, so that its years may overlap with
    those that observations are tested on."""


def declare(source: xr.Dataset, metadata: Metadata, where: str) -> xr.Dataset:
    """The source with everything declared of it applied; lazy.

    where: names the source in errors. Raises CatalogError for a declaration that does not fit.
    """
    source = _select(source, metadata.select, where)
    source = _combine(source, metadata, where)
    if metadata.plane is not None:
        source = _lay_out(source, metadata.plane, where)
    if metadata.crs is not None:
        source = source.assign_coords(crs=((), 0, mapping(from_text(metadata.crs))))
    source = _name_axes(source, metadata.axes, where)
    source = _dates(source, metadata.time_units, where)
    if metadata.time_units is not None:
        source = _decode_time(source, metadata.time_units, where)
    if metadata.period is not None:
        source = _crop(source, metadata.period, where)
    if metadata.winds is not None:
        source = source.copy()
        for variable in source.data_vars.values():
            variable.attrs["winds"] = metadata.winds
    if metadata.free_running:
        source = source.assign_attrs({FREE_RUNNING: 1})
    return _describe(source, metadata.variables, where)


def _select(source: xr.Dataset, select: dict[str, Any], where: str) -> xr.Dataset:
    for dim, label in select.items():
        if dim not in source.dims:
            raise CatalogError(
                f"{where}: 'select' names '{dim}', which is no dimension of it."
                f"{nearest(dim, _names(source.dims))} It has: {_listed(source.dims)}."
            )
        if dim not in source.indexes:
            if not isinstance(label, int) or not -source.sizes[dim] <= label < source.sizes[dim]:
                raise CatalogError(
                    f"{where}: 'select' asks for {dim}: {label}, but there are positions "
                    f"0 to {source.sizes[dim] - 1}."
                )
            source = source.isel({dim: label})
            continue
        try:
            source = source.sel({dim: label})
        except (KeyError, TypeError, ValueError) as error:
            raise CatalogError(
                f"{where}: 'select' asks for {dim}: {label}, but there are only "
                f"{_listed(source[dim].values[:12])}."
            ) from error
    return source


def _combine(source: xr.Dataset, metadata: Metadata, where: str) -> xr.Dataset:
    """Dimensions of versions gone: the first entry in order of labels, its gaps from the next ones.

    ERA5 and its preliminary release ERA5T come along `expver`, each with a part of the times.
    """
    for dim in metadata.combine:
        if dim not in source.dims:
            raise CatalogError(
                f"{where}: 'combine' names '{dim}', which is no dimension of it."
                f"{nearest(dim, _names(source.dims))} It has: {_listed(source.dims)}."
            )
    versions = [dim for dim in source.dims if str(dim).lower() == "expver"]
    for version in dict.fromkeys([*metadata.combine, *map(str, versions)]):
        if version not in metadata.combine:
            logger.info("%s: the entries of '%s' complete each other, first %s.", where, version,
                        source[version].values[0] if version in source.coords else 0)  # fmt: skip
        source = as_dask(source)
        ordered = source.sortby(version) if version in source.indexes else source
        entries = [ordered.isel({version: n}, drop=True) for n in range(source.sizes[version])]
        combined = {}
        for name, variable in entries[0].data_vars.items():
            if version in source[name].dims:
                for later in entries[1:]:
                    variable = variable.fillna(later[name])
                combined[name] = variable.assign_attrs(source[name].attrs)
        source = entries[0].assign(combined)
    return source


def _lay_out(source: xr.Dataset, plane: tuple[str, str], where: str) -> xr.Dataset:
    """The source on a `Plane`, its first row northmost."""
    rows, columns = plane
    for dim in plane:
        if dim not in source.dims or rows == columns:
            raise CatalogError(
                f"{where}: 'plane' calls its rows and columns {rows} and {columns}; expected two "
                f"of its dimensions: {_listed(source.dims)}."
            )
    places = [name for kind in ("latitude", "longitude") for name in candidates(source, kind)]
    curved = [name for name in places if name in source.coords and source[name].ndim > 1]
    source = source.drop_vars([*curved, *(dim for dim in plane if dim in source.variables)])
    taken = {"latitude", "longitude"} & {*map(str, source.variables), *map(str, source.dims)}
    if taken - set(plane):
        raise CatalogError(
            f"{where}: 'plane' is for data without geography, but it has '{sorted(taken)[0]}'. "
            "Leave 'plane' out."
        )
    grid = Plane.of_size(*(source.sizes[dim] for dim in plane))
    renamed = source.rename({rows: "latitude", columns: "longitude"})
    return renamed.assign_coords(grid.coordinates())


def _name_axes(source: xr.Dataset, axes: dict[Any, str], where: str) -> xr.Dataset:
    for axis, name in axes.items():
        if name not in source.dims:
            raise CatalogError(
                f"{where}: 'axes' calls '{name}' its {axis}, but it has no such dimension."
                f"{nearest(name, _names(source.dims))} It has: {_listed(source.dims)}."
            )
        dates = [c for c in source.coords.values() if c.dims == (name,) and c.dtype.kind == "M"]
        if axis == "time" and name not in source.coords and not dates:
            raise CatalogError(
                f"{where}: 'axes' calls '{name}' its time, but this dimension has no values, so "
                "its times are not known. Write them into the source."
            )
        if axis in ("latitude", "longitude") and name not in source.coords:
            raise CatalogError(
                f"{where}: 'axes' calls '{name}' its {axis}, but this dimension has no values. If "
                "the rows and columns have no place on Earth, or none that two lists can tell, "
                "leave 'axes' out and declare 'plane: [ROWS, COLUMNS]'."
            )
        if name.lower() in ROTATED:
            raise CatalogError(
                f"{where}: 'axes' calls '{name}' its {axis}, but that counts from a rotated pole. "
                "Name the projection with 'crs', or declare 'plane: [ROWS, COLUMNS]'."
            )
        if name == axis:
            continue
        if axis in source.variables or axis in source.dims:
            raise CatalogError(
                f"{where}: 'axes' calls '{name}' its {axis}, but it has another '{axis}' already."
            )
        source = source.rename({name: axis})
    return source


def _dates(source: xr.Dataset, time_units: str | None, where: str) -> xr.Dataset:
    """The source with times that were written as numbers, such as 2019010106."""
    for name in candidates(source, "time"):
        if name not in source.coords or is_time_reference(str(source[name].attrs.get("units"))):
            continue
        dates = dates_in_numbers(source[name].values)
        if dates is None:
            continue
        if time_units is not None:
            raise CatalogError(
                f"{where}: the numbers '{name}' are dates, the first {source[name].values[0]:.10g} "
                f"is {dates[0]}; leave out 'time_units', they are recognised."
            )
        logger.info("%s: the numbers '%s' are taken for dates from %s to %s.", where, name,
                    dates[0], dates[-1])  # fmt: skip
        times = (source[name].dims, dates, {"standard_name": "time"})
        source = source.assign_coords({name: times})
    return source


def _decode_time(source: xr.Dataset, units: str, where: str) -> xr.Dataset:
    if not is_time_reference(units):
        raise CatalogError(
            f"{where}: 'time_units' is '{units}'; expected a unit and an epoch, such as "
            "'hours since 1996-01-05 00:00'."
        )
    name = next((name for name in TIME_AXES if name in source.dims), None)
    if name is None or name not in source.coords:
        raise CatalogError(
            f"{where}: 'time_units' needs to know the time axis. Add 'axes: {{time: NAME}}', with "
            f"one of: {_listed(source.dims)}."
        )
    numbers = source[name]
    if numbers.dtype.kind not in "iuf":
        raise CatalogError(
            f"{where}: the times '{name}' are dates already ({numbers.values[0]}), so 'time_units' "
            "has nothing to decode. Leave it out."
        )
    counted = xr.Variable((name,), numbers.values, {"units": units})
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", xr.SerializationWarning)  # of dates that no one has
            times = xr.decode_cf(xr.Dataset(coords={name: counted}))[name]
        if times.dtype.kind != "M":
            raise ValueError(f"the times would run from {times.values[0]} to {times.values[-1]}")
    except (ValueError, OverflowError) as error:
        raise CatalogError(f"{where}: 'time_units: {units}' cannot be read: {error}") from error
    source = source.assign_coords({name: (name, times.values, {"standard_name": "time"})})
    return source if name == "time" else source.rename({name: "time"})


def _crop(source: xr.Dataset, period: tuple[str, str], where: str) -> xr.Dataset:
    try:
        start, stop = (pd.Timestamp(source.attrs.get(bound, bound)) for bound in period)
    except ValueError as error:
        raise CatalogError(
            f"{where}: 'period' is {list(period)}; expected two dates, or names of attributes of "
            f"the source that hold dates. It has: {_listed(source.attrs)}."
        ) from error
    if len(str(source.attrs.get(period[1], period[1]))) <= 10:
        stop += pd.Timedelta("1D") - pd.Timedelta("1us")
    time = find_time(source)
    inside = np.flatnonzero(
        (time.values >= start.to_datetime64()) & (time.values <= stop.to_datetime64())
    )
    if not inside.size:
        raise CatalogError(f"{where}: it has no times within its 'period' {start} to {stop}.")
    return source.isel({time.dims[0]: slice(int(inside[0]), int(inside[-1]) + 1)})


def _describe(
    source: xr.Dataset, variables: dict[str, VariableDeclaration], where: str
) -> xr.Dataset:
    names = {}
    source = source.copy()
    for found, said in variables.items():
        if found not in source.data_vars:
            raise CatalogError(
                f"{where}: 'variables' describes '{found}', which it does not have."
                f"{nearest(found, _names(source.data_vars))} It has: {_listed(source.data_vars)}."
            )
        variable = source[found]
        attributes = dict(variable.attrs)
        if said.units is not None:
            if attributes.get("units", said.units) != said.units:
                logger.info(
                    "%s: '%s' is taken to be in '%s', not '%s' as its file says.",
                    where,
                    found,
                    said.units,
                    attributes["units"],
                )
            attributes["units"] = said.units
        if said.missing:
            attributes["missing"] = list(said.missing)
        if said.trusted:
            attributes["trusted"] = 1
        if said.accumulated is not None:
            attributes["accumulated"] = said.accumulated
        source[found] = variable.assign_attrs(attributes)
        name = said.name or found
        names[found] = name if said.level is None else f"{name}{said.level:g}"
    changed = {found: name for found, name in names.items() if name != found}
    kept = [str(name) for name in source.variables if name not in changed]
    twice = [name for name in changed.values() if [*kept, *changed.values()].count(name) > 1]
    if twice:
        raise CatalogError(f"{where}: 'variables' gives the name '{twice[0]}' twice.")
    return source.rename(changed)


def _names(keys: Any) -> list[str]:
    return [str(key) for key in keys]


def _listed(keys: Any) -> str:
    return ", ".join(_names(keys)) or "none"
