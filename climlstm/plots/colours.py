"""From numbers to colours: ends of the scale, levels, and what the colour bar says about them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import matplotlib
import numpy as np
from matplotlib.colors import BoundaryNorm, Colormap, ListedColormap, Normalize
from matplotlib.ticker import MaxNLocator

from climlstm.errors import DataError
from climlstm.plots.quantity import Quantity

ERROR_COLORMAP = "RdBu_r"
"""White where the forecast is right, red where it is too high."""

SPREAD_COLORMAP = "YlOrRd"

MISSING_COLOUR = "#d9d9d9"

_NARROW = 0.4
"""Share of the usual limits below which a field is given a colour scale of its own."""

_MOST_BEYOND = 0.02
"""Share of a field beyond the usual limits above which it is given a scale of its own."""

Limits: TypeAlias = tuple[float, float]

Levels: TypeAlias = int | Sequence[float]
"""About so many steps of colour at round numbers, or the edges between them."""


@dataclass(frozen=True)
class Colours:
    """A colour scale."""

    norm: Normalize
    colormap: Colormap
    extend: Literal["neither", "both", "min", "max"] = "neither"
    """Ends beyond which there are values."""
    ticks: tuple[tuple[float, str], ...] = ()
    """Places on the colour bar and their names; matplotlib's own where empty."""
    note: str = ""
    """A remark on the map: that there are no data, or only one value."""


def colours_of(
    values: np.ndarray,
    quantity: Quantity,
    *,
    usual: Limits | None = None,
    limits: Limits | None = None,
    levels: Levels | None = None,
    cmap: str | Colormap = "viridis",
    given_cmap: str | Colormap | None = None,
) -> Colours:
    """The scale for values in the display unit, of the region that is shown.

    usual: limits and `cmap` that the variable usually has; they give way where the values lie
    elsewhere. limits, levels, given_cmap: those that were asked for.
    Raises DataError for limits or levels that make no scale.
    """
    finite = values[np.isfinite(values)]
    if not finite.size:
        return Colours(Normalize(0, 1), _map(given_cmap or cmap), note="no data")
    if quantity.categories and limits is None and levels is None:
        return _by_category(quantity.categories, given_cmap or cmap)
    if quantity.is_difference:
        low, high = limits or _difference_limits(finite)
        cmap = ERROR_COLORMAP if low < 0 < high else SPREAD_COLORMAP
    elif quantity.is_direction:
        (low, high), cmap = limits or (0.0, 360.0), "twilight"
    else:
        low, high = limits or _field_limits(finite, usual, quantity)
        if quantity.is_component and not low < 0 < high:
            cmap = "viridis"  # the white of one with two sides would not be zero
    if not low < high:
        raise DataError(f"limits run from low to high, not from {low:g} to {high:g}.")
    chosen = _map(given_cmap or cmap)
    norm: Normalize = Normalize(low, high)
    if levels is not None:
        edges = _edges(levels, low, high)
        norm = Normalize(edges[0], edges[-1])
    if (quantity.is_difference or quantity.is_component) and not given_cmap:
        chosen = _centred(chosen, norm)
    extend = extension(finite, norm)
    if levels is not None:
        norm = BoundaryNorm(edges, max(256, len(edges)), extend=extend)
    note = f"everywhere {finite.flat[0]:.5g}" if finite.min() == finite.max() else ""
    return Colours(norm, chosen, extend, note=note)


def error_colours(
    errors: np.ndarray, *, limit: float | None = None, levels: Levels | None = None
) -> Colours:
    """The scale for errors, white at zero and as far to both sides.

    limit: its end; a round number that 99.5 of 100 errors stay below, if not given.
    levels: the number of steps; edges given for the fields say nothing about their errors.
    """
    end = limit or symmetric_limit(errors)
    shared = levels if isinstance(levels, int) else None
    return colours_of(
        errors, Quantity(is_difference=True), limits=(-end, end), levels=shared,
        given_cmap=ERROR_COLORMAP,
    )  # fmt: skip


def _map(name: str | Colormap) -> Colormap:
    if not isinstance(name, str):
        return name.with_extremes(bad=MISSING_COLOUR)
    if name not in matplotlib.colormaps:
        from climlstm.errors import nearest

        raise DataError(
            f"There is no colour map '{name}'.{nearest(name, matplotlib.colormaps)} "
            "matplotlib.colormaps lists all of them."
        )
    return matplotlib.colormaps[name].with_extremes(bad=MISSING_COLOUR)


def _centred(colormap: Colormap, norm: Normalize) -> Colormap:
    """The part of a colour map of two sides that has its middle at zero."""
    low, high = norm.vmin or 0.0, norm.vmax or 0.0
    if not low < 0 < high or low == -high:
        return colormap
    first, last = (0.5 + end / max(-low, high) / 2 for end in (low, high))
    return ListedColormap(colormap(np.linspace(first, last, 256))).with_extremes(bad=MISSING_COLOUR)


def _by_category(categories: tuple[tuple[float, str], ...], cmap: str | Colormap) -> Colours:
    """One colour for each kind, named at its middle; other values are grey."""
    values = np.array([value for value, _ in categories])
    middles = (values[1:] + values[:-1]) / 2
    edges = np.concatenate([[values[0] - 0.5], middles, [values[-1] + 0.5]])
    if len(values) > 2 and cmap == "viridis":
        cmap = "tab10" if len(values) <= 10 else "tab20"
    base = _map(cmap)
    listed = isinstance(base, ListedColormap) and base.N < 256
    places = np.arange(len(values)) % base.N if listed else np.linspace(0.08, 0.85, len(values))
    colours = ListedColormap(base(places)).with_extremes(bad=MISSING_COLOUR)
    centres = (edges[1:] + edges[:-1]) / 2
    ticks = tuple(zip(centres.tolist(), (name for _, name in categories), strict=True))
    return Colours(BoundaryNorm(edges, len(values)), colours, ticks=ticks)


def _edges(levels: Levels, low: float, high: float) -> np.ndarray:
    if isinstance(levels, int):
        locator = MaxNLocator(max(levels, 1), steps=[1, 2, 2.5, 5, 10])
        return np.asarray(locator.tick_values(low, high), "float64")
    edges = np.asarray(levels, "float64")
    if edges.ndim != 1 or edges.size < 2 or not (np.diff(edges) > 0).all():
        raise DataError(
            f"levels={levels!r}: expected a number of steps, or two or more rising edges."
        )
    return edges


def _difference_limits(finite: np.ndarray) -> Limits:
    """Symmetric where there are both signs; from zero where there is one and it is near."""
    end = symmetric_limit(finite)
    if np.abs(finite).min() > end / 2 and finite.min() * finite.max() > 0:
        return round_limits(finite)
    return (0.0, end) if finite.min() >= 0 else (-end, end)


def _field_limits(finite: np.ndarray, usual: Limits | None, quantity: Quantity) -> Limits:
    """The usual limits, or round numbers around the values where these lie elsewhere.

    A scale that is symmetric about zero stays so for values of both signs.
    """
    low, high = _patchy_limits(finite) if quantity.is_patchy else round_limits(finite)
    if usual is None:
        return low, high
    beyond = ((finite < usual[0]) | (finite > usual[1])).mean()
    if beyond <= _MOST_BEYOND and high - low > _NARROW * (usual[1] - usual[0]):
        return usual
    if usual[0] == -usual[1] and low < 0 < high:
        return -max(-low, high), max(-low, high)
    return low, high


def _patchy_limits(finite: np.ndarray) -> Limits:
    """From zero to what one in a hundred of the wet cells exceeds."""
    wet = finite[finite > 0]
    if not wet.size or finite.min() < 0:
        return round_limits(finite)
    return 0.0, round_up(float(np.quantile(wet, 0.99)))


def extension(values: np.ndarray, norm: Normalize) -> Literal["neither", "both", "min", "max"]:
    """At which ends values lie beyond the colour scale."""
    finite = values[np.isfinite(values)]
    if not finite.size:
        return "neither"
    low, high = norm.vmin or 0.0, norm.vmax or 0.0
    slack = 1e-9 * max(abs(low), abs(high))
    below, above = finite.min() < low - slack, finite.max() > high + slack
    if below and above:
        return "both"
    return "min" if below else "max" if above else "neither"


def round_limits(values: np.ndarray) -> Limits:
    """Round numbers just outside the finite values."""
    finite = values[np.isfinite(values)]
    if finite.size == 0:
        return 0.0, 1.0
    low, high = float(finite.min()), float(finite.max())
    if high - low <= 1e-12 * max(abs(low), abs(high), 1e-300):
        margin = 0.5 * abs(low) or 0.5
        return low - margin, high + margin
    step = round_up((high - low) / 10)
    return float(np.floor(low / step) * step), float(np.ceil(high / step) * step)


def symmetric_limit(errors: np.ndarray) -> float:
    """A round number that 99.5 of 100 errors stay below, the same for both signs."""
    size = np.abs(errors[np.isfinite(errors)])
    return round_up(float(np.quantile(size, 0.995))) if size.size and size.max() > 0 else 1.0


def round_up(number: float) -> float:
    """The next of 1, 1.5, 2, 2.5, 3, 4, 5, 6, 8 times a power of ten."""
    power = 10.0 ** np.floor(np.log10(number))
    steps = np.array([1, 1.5, 2, 2.5, 3, 4, 5, 6, 8, 10])
    return float(f"{steps[np.searchsorted(steps, number / power - 1e-9)] * power:.6g}")
