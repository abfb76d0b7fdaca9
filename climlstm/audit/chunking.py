"""Rules about the layout of a source: chunks, steps, blocks of cells, length of training."""

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from climlstm.audit.findings import Finding
from climlstm.calendars import Times, clock, time_text
from climlstm.config import Config
from climlstm.data.cube.cube import CubePlan
from climlstm.data.sources.origin import AxisChunks, chunks_along
from climlstm.data.sources.times import between_steps, full_steps, step_of
from climlstm.grid import EARTH_RADIUS_KM, Grid, LatLon, has_pole_row
from climlstm.steps import DAY, Step

MAX_READ_AMPLIFICATION = 2.0
"""Values decoded for each one used, from which a warning is due."""

MAX_PARAMETERS_PER_VALUE = 10.0
"""Parameters for each independent value, beyond which a warning is due. Our rule of thumb: with
early stopping and averaged weights, networks with a few times as many still generalise."""

FINEST_WEATHER = 0.01
"""Degrees between rows (about 1 km), below which the two numbers that follow have no meaning."""
INDEPENDENT_KM = 1000.0
INDEPENDENT_DAYS = 5.0
"""Size and life of a synoptic system (Holton & Hakim 2013, An Introduction to Dynamic Meteorology,
table 1.3): values of one channel nearer to one another are not independent of each other."""


def check_steps(config: Config, times: Times) -> Iterator[Finding]:
    """Steps that do not divide a day, or are no multiple of one another.

    times: of the source, increasing.
    """
    step = config.data.step
    if step.duration is not None and not (DAY.is_multiple_of(step) or step.is_multiple_of(DAY)):
        yield _uneven(
            "data.step",
            f"{step} divides no day, so the hours of windows drift and the "
            "climatology has few values for each",
            "Use 1h, 2h, 3h, 4h, 6h, 8h, 12h or whole days.",
        )
    every = config.forecast.every
    if not (every.is_multiple_of(step) or step.is_longer_than(every)):
        yield _uneven(
            "forecast.every",
            f"{every} is no multiple of the step {step}, so many initial times are left out",
            f"Use a multiple of {step}.",
        )
    native = step_of(times) if times.size > 2 else step
    if not step.is_multiple_of(native):
        yield _uneven(
            "data.step",
            f"{step} is no multiple of the source's {native}, so steps are left out",
            f"Use a multiple of {native}.",
        )


def check_left_out(times: Times, kept: Times, step: Step) -> Iterator[Finding]:
    """Times that were rounded to full steps, and times between the steps, which are left out.

    times: of the source, increasing; kept: of the cube.
    """
    rounded = full_steps(times, step)
    if not np.array_equal(rounded, times):
        off = np.abs(clock(rounded) - clock(times)).max().astype("timedelta64[us]").item()
        yield Finding(
            "times-rounded",
            "note",
            "Times of the source miss full steps by rounding and count as full steps",
            "time axis of the source",
            f"{np.count_nonzero(rounded != times)} of {times.size} times, by up to {off}",
            "Nothing has to be done.",
        )
    odd = between_steps(rounded, kept, step)
    if odd.size:
        yield Finding(
            "times-left-out",
            "warning",
            f"Times of the source lie between the steps of {step} and are left out",
            "time axis of the source",
            f"{odd.size} of {times.size} times, the first at {time_text(odd[0])}; kept are "
            f"{kept.size}, the first at {time_text(kept[0])}",
            "Choose a step that all times have, or write a source whose times have one step.",
        )


def check_gaps(times: Times, step: Step) -> Iterator[Finding]:
    """Steps that the cube lacks; windows go round them."""
    apart = np.diff(step.number(times))
    gaps = np.flatnonzero(apart > 1)
    if gaps.size:
        lacking = int(np.sum(apart[gaps] - 1))
        yield Finding(
            "gaps",
            "note",
            "The source lacks steps; windows go round them",
            "time axis of the source",
            f"{lacking} steps in {gaps.size} gaps, the first after {time_text(times[gaps[0]])}",
            "Complete the source if they should be there.",
        )


def check_coarsening(grid: Grid, coarsen: int) -> Iterator[Finding]:
    """Grids that do not make whole or equal blocks.

    grid: of the cells before they are averaged.
    """
    for name, size in zip(("rows", "columns"), grid.shape, strict=True):
        if size % coarsen:
            yield Finding(
                "coarsening-uneven",
                "warning",
                f"{name} do not make whole blocks",
                "data.coarsen",
                f"{size} {name}, blocks of {coarsen}: {size % coarsen} left over",
                f"Choose data.region such that {size - size % coarsen} are left.",
            )
    poles = [pole for pole in (90.0, -90.0) if has_pole_row(grid.latitude[:, 0], pole)]
    if coarsen > 1 and poles:
        yield Finding(
            "coarsening-uneven",
            "warning",
            "A row on the pole is averaged with full rows, though its cells are half as high",
            "data.coarsen",
            f"row at {' and '.join(f'{pole:g}' for pole in poles)} degrees north, blocks of "
            f"{coarsen}",
            "Choose data.region without the row on the pole.",
        )


def check_length(
    days: float,
    grid: Grid,
    *,
    channels: int,
    parameters: int,
) -> Iterator[Finding]:
    """A training set too short for the model: far more parameters than values.

    days: time that the training steps cover. A grid finer than `FINEST_WEATHER` passes: it is data
    without geography, or of a street.
    """
    if grid.shape[0] > 1 and np.abs(np.diff(grid.latitude[:, 0])).max() < FINEST_WEATHER:
        return
    values = channels * max(days / INDEPENDENT_DAYS, 1) * _regions(grid)
    if parameters > MAX_PARAMETERS_PER_VALUE * values:
        yield Finding(
            "training-too-short",
            "warning",
            "The network has far more parameters than the training period has independent "
            "values, so it may learn them by heart",
            "data.periods.train",
            f"{parameters:,} parameters; about {values:,.0f} values ({days:,.0f} days, one value a "
            f"channel, {INDEPENDENT_DAYS:g} days and {INDEPENDENT_KM:g} km)",
            "Lengthen the training period, or make the network smaller (model.options).",
        )


def _regions(grid: Grid) -> float:
    """Number of squares of `INDEPENDENT_KM` that the grid covers; 1 to its number of cells."""
    cells = math.prod(grid.shape)
    area = cells * math.prod(grid.cell_km)
    if isinstance(grid, LatLon):
        south, north = np.deg2rad([grid.rows.min(), grid.rows.max()])
        width = np.deg2rad(grid.columns.max() - grid.columns.min())
        area = EARTH_RADIUS_KM**2 * width * (np.sin(north) - np.sin(south))
    return float(np.clip(area / INDEPENDENT_KM**2, 1, cells))


def check_chunks(plan: CubePlan, wanted: NDArray[np.int64]) -> Iterator[Finding]:
    """Chunks of which far more is decoded than used.

    wanted: positions among the times of the plan that lie in a period.
    """
    alike: dict[tuple[tuple[str, tuple[int, int]], ...], list[str]] = {}
    for variable, dims in points_read(plan, wanted).items():
        if str(plan.axes.dims[0]) in dims:  # others are read once
            alike.setdefault(tuple(dims.items()), []).append(variable)
    for sizes, variables in alike.items():
        ratio = float(np.prod([decoded / used for _, (decoded, used) in sizes]))
        if ratio >= MAX_READ_AMPLIFICATION:
            worst = max(sizes, key=lambda size: size[1][0] / size[1][1])[0]
            names = "'" + "', '".join(variables) + "'"
            yield Finding(
                "chunks-in-vain",
                "warning",
                f"Of {names} far more is decoded than used",
                f"variables of the source, mostly along '{worst}'",
                f"{ratio:.1f} times as much: "
                + ", ".join(f"{d} of which {u} along {n}" for n, (d, u) in sizes if d > u),
                "'climlstm prepare' writes a store of what is used; or choose more of the source.",
            )


def points_read(plan: CubePlan, wanted: NDArray[np.int64]) -> dict[str, dict[str, tuple[int, int]]]:
    """Numbers of points (decoded, used), by variable of the source and dimension."""
    time, latitude, longitude = plan.axes.dims
    fields = [field for recipe in plan.recipes for field in recipe.fields]
    found = {}
    for name in dict.fromkeys(field.variable for field in fields):
        places = [dict(field.positions) for field in fields if field.variable == name]
        used: dict[Any, NDArray] = {
            time: plan.times.indices[wanted],
            latitude: plan.cells.rows.indices,
            longitude: plan.cells.columns.indices,
        }
        variable = plan.source[name].variable
        found[name] = {
            str(dim): _decoded(
                chunks_along(variable, dim),
                np.unique([p[dim] for p in places if dim in p])
                if any(dim in p for p in places)
                else used.get(dim, np.zeros(1, dtype="int64")),
            )
            for dim in variable.dims
        }
    return found


def _decoded(chunks: AxisChunks, positions: NDArray[np.int64]) -> tuple[int, int]:
    """Number of points in the chunks in which the positions lie, and of the positions."""
    return chunks.points(np.unique(chunks.holding(positions))), int(np.unique(positions).size)


def _uneven(where: str, what: str, fix: str) -> Finding:
    return Finding("steps-do-not-divide", "warning", what, where, what.split(" ")[0], fix)
