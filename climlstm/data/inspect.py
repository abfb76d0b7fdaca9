"""A first look at a source: variables, times, grid, chunks, missing values, possible channels.

It stands beside `sources`, not in it, since what channels a source can give is known to `cube`.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import xarray as xr

from climlstm import html, plugins
from climlstm.data.cube.matching import FILL_ATTRIBUTES, NoChannelError, find_fields
from climlstm.data.sources.axes import Axes, find_axes, find_levels
from climlstm.data.sources.catalog import list_sources, open_path, open_source
from climlstm.errors import CatalogError, ClimLSTMError
from climlstm.plugins import Variable
from climlstm.plugins.channels import Channel
from climlstm.steps import format_duration

COLUMNS = ("variable", "units", "dimensions", "type", "chunks", "missing")


@dataclass(frozen=True)
class Inspection:
    """Facts about a source from its metadata and coordinates; shown as tables."""

    name: str
    times: str
    """First and last time, their number, the step and the gaps; or why there is no time axis."""
    grid: str
    """Rows, columns and extent; or why the grid is not understood."""
    variables: tuple[tuple[str, ...], ...]
    """A row for each variable, in the order of COLUMNS."""
    channels: dict[str, str]
    """Channels that a run file may name, each with the variables that it is made of."""
    problems: tuple[str, ...]
    """Channels whose variable is there but cannot be used, each with the remedy."""

    def __repr__(self) -> str:
        rows = [COLUMNS, *self.variables]
        widths = [max(len(row[column]) for row in rows) for column in range(len(COLUMNS))]
        padded = ("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))
                  for row in rows)  # fmt: skip
        facts = (f"{name}: {fact}" for name, fact in self._facts().items())
        problems = (f"! {problem}" for problem in self.problems)
        return "\n".join([self.name, *facts, *problems, "", *(line.rstrip() for line in padded)])

    def _repr_html_(self) -> str:
        return html.fragment(
            f'<div class="name">{html.text(self.name)}</div>',
            html.facts([*self._facts().items(), *(("problem", text) for text in self.problems)]),
            html.table(COLUMNS, self.variables),
        )

    def _facts(self) -> dict[str, str]:
        made = ", ".join(self.channels) or "none"
        return {"times": self.times, "grid": self.grid, "channels": made}


def inspect(source: str | Path | xr.Dataset) -> Inspection:
    """Describe what a source holds and which channels it can give; only coordinates are read.

    source: 'catalog.yaml:NAME', the path or URL of a Zarr store, NetCDF or GRIB file, or an open
        dataset.
    Raises CatalogError where it cannot be opened.

    >>> import climlstm
    >>> found = climlstm.inspect("catalog.yaml:atmosphere")
    >>> found.times
    '2001-01-01T00:00 to 2001-04-10T18:00, 400 times, every 6h'
    >>> "msl" in found.channels
    True
    """
    if isinstance(source, xr.Dataset):
        return _inspect(source, "dataset")
    catalog, colon, name = str(source).rpartition(":")
    if colon and catalog.endswith((".yaml", ".yml")):
        return _inspect(open_source(catalog, name), str(source))
    if str(source).endswith((".yaml", ".yml")):
        names = ", ".join(found.name for found in list_sources(str(source)))
        raise CatalogError(
            f"'{source}' is a catalog. Say which of its sources is meant, as '{source}:NAME'. "
            f"It has: {names or 'none'}."
        )
    return _inspect(open_path(str(source)), str(source))


def _inspect(source: xr.Dataset, name: str) -> Inspection:
    rows = tuple(_describe(source, str(key)) for key in source.data_vars)
    try:
        axes = find_axes(source)
    except ClimLSTMError as error:
        return Inspection(name, str(error), _sizes(source), rows, {}, ())
    channels, problems = _possible_channels(source, axes)
    return Inspection(name, _times(axes), _grid(axes), rows, channels, tuple(problems))


def _describe(source: xr.Dataset, name: str) -> tuple[str, ...]:
    """A row of the table of variables."""
    found = source[name]
    levels = find_levels(source, name)
    dims = " × ".join(f"{dim} {size}" for dim, size in found.sizes.items()) or "scalar"
    if levels is not None:
        dims += f" ({', '.join(f'{level:g}' for level in levels[1])} hPa)"
    chunks = found.encoding.get("chunks") or [
        sizes[0] for sizes in found.variable.chunksizes.values()
    ]
    said = found.encoding | found.attrs
    missing = dict.fromkeys(f"{said[key]:g}" if np.ndim(said[key]) == 0 else str(said[key])
                            for key in FILL_ATTRIBUTES if key in said)  # fmt: skip
    return (
        name,
        str(found.attrs.get("units", "not said")),
        dims,
        str(found.encoding.get("dtype", found.dtype)),
        " × ".join(map(str, chunks)) or "whole",
        ", ".join(missing) or "not said",
    )


def _sizes(source: xr.Dataset) -> str:
    return ", ".join(f"{dim} {size}" for dim, size in source.sizes.items()) or "no dimensions"


def _times(axes: Axes) -> str:
    times = pd.DatetimeIndex(axes.time.values)
    if times.size < 2:
        return f"{times.size} times{''.join(f', {time:%Y-%m-%dT%H:%M}' for time in times)}"
    return (
        f"{times[0]:%Y-%m-%dT%H:%M} to {times[-1]:%Y-%m-%dT%H:%M}, {times.size} times, "
        f"{_step(times)}"
    )


def _step(times: pd.DatetimeIndex) -> str:
    """The commonest distance of neighbours, and at how many places it is another."""
    if set(np.diff(12 * times.year + times.month)) == {1}:
        return "every month"
    steps, counts = np.unique(np.diff(times), return_counts=True)
    step, others = steps[counts.argmax()], int(counts.sum() - counts.max())
    every = format_duration(pd.Timedelta(step).to_pytimedelta())
    return f"every {every}" + (f" but for {others} place{'s' * (others > 1)}" if others else "")


def _grid(axes: Axes) -> str:
    rows, columns = axes.latitude.values, axes.longitude.values
    return (
        f"{rows.size} × {columns.size} cells, {rows[0]:g} to {rows[-1]:g} degrees north, "
        f"{columns[0]:g} to {columns[-1]:g} degrees east"
    )


def _possible_channels(source: xr.Dataset, axes: Axes) -> tuple[dict[str, str], list[str]]:
    """Channels with the variables that hold them, and what keeps others from being made."""
    channels: dict[str, str] = {}
    problems: list[str] = []
    levels = sorted(_levels(source), reverse=True)
    for plugin in plugins.discover("variables"):
        try:
            variable: Variable = plugins.load_found(plugin)
        except ClimLSTMError as error:
            problems.append(str(error))
            continue
        for level in levels if variable.on_levels else [None]:
            label = plugin.name if level is None else f"{plugin.name}{level:g}"
            channel = Channel(label, variable, level)
            try:
                fields = find_fields(source, axes, channel)
            except NoChannelError:
                continue
            except ClimLSTMError as error:
                problems.append(str(error))
                continue
            channels[label] = ", ".join(dict.fromkeys(field.variable for field in fields))
    return channels, list(dict.fromkeys(problems))


def _levels(source: xr.Dataset) -> Iterable[float]:
    """Pressures in hPa on the axes of the source, and in names such as 'z500'."""
    found = {float(match[1]) for name in source.data_vars
             if (match := re.search(r"\D(\d{1,4})(?:hPa)?$", str(name)))}  # fmt: skip
    for name in source.data_vars:
        levels = find_levels(source, str(name))
        found |= set() if levels is None else {float(level) for level in levels[1]}
    return {level for level in found if 0 < level <= 1100}
