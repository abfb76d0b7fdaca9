"""A first look at a source: variables, times, grid, chunks, missing values, possible channels.

It stands beside `sources`, not in it, since what channels a source can give is known to `cube`.
"""

import re
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from climlstm import html, plugins
from climlstm.advice import variable_line
from climlstm.data.possible import likely_variable, possible_channels
from climlstm.data.sources.axes import (
    Axes,
    find_axes,
    find_levels,
    find_time,
    select_cells,
)
from climlstm.data.sources.catalog import list_sources, open_path, open_source
from climlstm.data.sources.files import describe
from climlstm.data.sources.fills import FILL_ATTRIBUTES
from climlstm.data.sources.times import select_times
from climlstm.data.trial import Trial, chunk_shape, read_some_steps
from climlstm.data.words import TimeFacts, describe_grid, describe_times
from climlstm.errors import CatalogError, ClimLSTMError, DataError

COLUMNS = ("variable", "units", "dimensions", "type", "chunks", "missing", "channels")

LISTED_LEVELS = 6
"""Levels of a variable that are listed one by one, at most."""


@dataclass(frozen=True)
class VariableFacts:
    """A variable of a source, as its metadata describe it."""

    name: str
    units: str | None
    sizes: dict[str, int]
    """Dimensions and their lengths."""
    levels: tuple[float, ...]
    """Pressures in hPa; empty for a variable without levels."""
    dtype: str
    chunks: tuple[int, ...]
    """Chunk sizes as stored; empty for a scalar."""
    fills: tuple[str, ...]
    """Values that stand for missing ones, as far as the file says."""
    missing: float | None
    """Share of missing values at the steps that were read; None where none were."""
    channels: tuple[str, ...]
    """Channels of ours that it holds."""
    could_be: str | None
    """Variable of ours that it may be, by units and long name, if a catalog says so."""

    def row(self) -> tuple[str, ...]:
        """Texts in the order of COLUMNS."""
        dims = " × ".join(f"{dim} {size}" for dim, size in self.sizes.items()) or "scalar"
        if self.levels:
            dims += f" ({', '.join(f'{level:g}' for level in self.levels)} hPa)"
        share = f"{self.missing:.0%} missing" if self.missing else ""
        maybe = f"could be {self.could_be}" if self.could_be else "–"
        return (
            self.name,
            self.units or "not said",
            dims,
            self.dtype,
            " × ".join(map(str, self.chunks)) or "whole",
            "; ".join(text for text in (", ".join(self.fills), share) if text) or "not said",
            _in_short(self.channels) or maybe,
        )


@dataclass(frozen=True)
class Inspection:
    """Facts about a source from its metadata, coordinates and a few steps; shown as tables."""

    name: str
    times: TimeFacts | str
    """First and last time, their number, the step and the gaps; or why there is no time axis."""
    grid: str
    """Rows, columns, spacing and extent; or why the grid is not understood."""
    reading: Trial | str
    """Size, time for reading it once; or why nothing was read."""
    variables: tuple[VariableFacts, ...]
    channels: dict[str, str]
    """Channels that a run file may name, each with the variables that it is made of."""
    problems: tuple[str, ...]
    """Whatever cannot be used as it is, each with the remedy."""
    hints: tuple[str, ...]
    """Variables that may be ours under other names, each with the line that says so."""

    def __repr__(self) -> str:
        rows = [COLUMNS, *(variable.row() for variable in self.variables)]
        widths = [max(len(row[column]) for row in rows) for column in range(len(COLUMNS))]
        padded = ("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))
                  for row in rows)  # fmt: skip
        facts = (f"{name}: {fact}" for name, fact in self._facts().items())
        marked = [*(f"! {text}" for text in self.problems), *(f"? {text}" for text in self.hints)]
        return "\n".join([self.name, *facts, *marked, "", *(line.rstrip() for line in padded)])

    def _repr_html_(self) -> str:
        return html.fragment(
            f'<div class="name">{html.text(self.name)}</div>',
            html.facts(
                [
                    *self._facts().items(),
                    *(("problem", text) for text in self.problems),
                    *(("hint", text) for text in self.hints),
                ]
            ),
            html.table(COLUMNS, [variable.row() for variable in self.variables]),
        )

    def _facts(self) -> dict[str, str]:
        made = _in_short(self.channels) or "none"
        facts = {"times": self.times, "grid": self.grid, "reading": self.reading, "channels": made}
        return {name: str(fact) for name, fact in facts.items()}

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON: all facts by the names of their attributes, and texts of what is printed."""
        found = asdict(self)
        found["text"] = self._facts()
        return found


def inspect(source: str | Path | xr.Dataset) -> Inspection:
    """Describe what a source holds and which channels it can give.

    Coordinates are read, and a few steps in the middle (4 MiB, or one step of up to 64 MiB).

    source: 'catalog.yaml:NAME', the path or URL of a Zarr store, NetCDF or GRIB file (also a
        pattern, 'era5_*.nc'), or an open dataset.
    Raises CatalogError where it cannot be opened.

    >>> import climlstm
    >>> found = climlstm.inspect("catalog.yaml:atmosphere")
    >>> str(found.times)
    '2001-01-01 00:00 to 2001-04-10 18:00, 400 times, every 6h'
    >>> "msl" in found.channels
    True
    """
    if isinstance(source, xr.Dataset):
        return _inspect(source, "dataset")
    return _inspect(open_named(str(source)), str(source))


def open_named(source: str) -> xr.Dataset:
    """The source of 'catalog.yaml:NAME', or the store or files at a path, pattern or URL.

    Raises CatalogError where it cannot be opened, or names a catalog alone.
    """
    catalog, colon, name = source.rpartition(":")
    if colon and catalog.endswith((".yaml", ".yml")):
        return open_source(catalog, name)
    if source.endswith((".yaml", ".yml")):
        names = ", ".join(found.name for found in list_sources(source))
        raise CatalogError(
            f"'{source}' is a catalog. Say which of its sources is meant, as '{source}:NAME'. "
            f"It has: {names or 'none'}."
        )
    return open_path(source)


def _inspect(source: xr.Dataset, name: str) -> Inspection:
    problems: list[str] = []
    times, grid = _times(source, problems), _sizes(source)
    reading: Trial | str = "not tried"
    channels: dict[str, str] = {}
    dims: tuple[Hashable, ...] = ()
    try:
        axes = find_axes(source)
    except ClimLSTMError as error:
        problems.append(str(error))
    else:
        dims = axes.dims
        grid = _grid(axes, problems)
        reading = _read(source, axes)
        channels, found = possible_channels(source, axes)
        problems += found
    missing = reading.missing if isinstance(reading, Trial) else {}
    bounds = {v.attrs.get("bounds", v.encoding.get("bounds")) for v in source.variables.values()}
    variables = tuple(
        _describe(source, str(key), dims, channels, missing)
        for key in source.data_vars
        if key not in bounds
    )
    told = " ".join(problems)
    hints = tuple(_declarations(v for v in variables if f"'{v.name}'" not in told))
    unique = tuple(dict.fromkeys(problems))
    return Inspection(name, times, grid, reading, variables, channels, unique, hints)


def _times(source: xr.Dataset, problems: list[str]) -> TimeFacts | str:
    try:
        coordinate = find_time(source)
        select_times(coordinate, None)
        facts = describe_times(coordinate)
    except ClimLSTMError as error:
        problems.append(str(error))
        return "no time axis"
    return facts


def _grid(axes: Axes, problems: list[str]) -> str:
    try:
        select_cells(axes, None)
    except DataError as error:
        problems.append(str(error))
    return str(axes.placed.grid) if axes.placed else describe_grid(axes.latitude, axes.longitude)


def _read(source: xr.Dataset, axes: Axes) -> Trial | str:
    """The trial, or why there is none."""
    try:
        return read_some_steps(source, axes.dims)
    except Exception as error:  # of the file format, the codec or the network
        return f"steps cannot be read: {describe(error)}"


def _describe(
    source: xr.Dataset,
    name: str,
    dims: Sequence[Hashable],
    channels: Mapping[str, str],
    missing: Mapping[str, float],
) -> VariableFacts:
    """Facts about a variable. dims: time, rows and columns; empty where they are not known."""
    found = source[name].variable
    levels = find_levels(source, name)
    said = found.encoding | found.attrs
    fills = dict.fromkeys(f"{said[key]:g}" if np.ndim(said[key]) == 0 else str(said[key])
                          for key in FILL_ATTRIBUTES if key in said)  # fmt: skip
    held = tuple(label for label, made in channels.items() if made == name)
    units = found.attrs.get("units")
    a_field = bool(dims) and set(dims[1:]) <= set(found.dims)
    known = not a_field or _is_ours(name, held)
    return VariableFacts(
        name=name,
        units=None if units is None else str(units),
        sizes={str(dim): size for dim, size in found.sizes.items()},
        levels=() if levels is None else tuple(float(level) for level in levels[1]),
        dtype=str(found.encoding.get("dtype", found.dtype)),
        chunks=chunk_shape(found),
        fills=tuple(fills),
        missing=missing.get(name),
        channels=held,
        could_be=None if known else likely_variable(name, found, dims[0], levels),
    )


def _is_ours(name: str, held: Sequence[str]) -> bool:
    """Whether a variable is one of ours, and not only a channel under its own name."""
    known = any(plugin.name == name for plugin in plugins.discover("variables"))
    return bool(held) and (known or any(not label.startswith(name) for label in held))


def _sizes(source: xr.Dataset) -> str:
    return ", ".join(f"{dim} {size}" for dim, size in source.sizes.items()) or "no dimensions"


def _declarations(variables: Iterable[VariableFacts]) -> Iterator[str]:
    """The line of a catalog for each variable that may be one of ours."""
    for each in variables:
        if each.could_be:
            says = {"name": each.could_be} | ({} if each.units else {"units": "UNIT"})
            yield (
                f"'{each.name}' may be our '{each.could_be}'. If so, say it "
                f"{variable_line(each.name, **says)}."
            )


def _in_short(channels: Iterable[str]) -> str:
    """Channels with commas between; of a variable on many levels the first and the last."""
    stems: dict[str, list[str]] = {}
    for label in channels:
        stem = re.match(r"\D+(?=\d+(?:\.\d+)?$)", label)
        stems.setdefault(stem[0] if stem else label, []).append(label)
    return ", ".join(
        ", ".join(labels) if len(labels) <= LISTED_LEVELS
        else f"{labels[0]} … {labels[-1]} ({len(labels)} levels)"
        for labels in stems.values()
    )  # fmt: skip
