"""Ensemble forecasts: mean and spread, spaghetti, probabilities, a stamp for each member."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from inspect import signature
from typing import Any, Literal, Unpack

import matplotlib
import numpy as np
import xarray as xr
from cartopy.mpl.geoaxes import GeoAxes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from climlstm.errors import DataError
from climlstm.plots.coastlines import draw_land
from climlstm.plots.colours import colours_of, round_limits, round_up
from climlstm.plots.fields import as_field
from climlstm.plots.maps import decorate, draw_values, open_maps
from climlstm.plots.options import Drawing, MapOptions, takes_map_options
from climlstm.plots.overlays import draw_isolines
from climlstm.plots.quantity import Quantity
from climlstm.plots.selection import MEMBERS, Lead, channel, choose_init, choose_lead, true_field
from climlstm.plots.sheet import SHEET_INCHES, draw_legend, set_titles
from climlstm.plots.styles import times_label
from climlstm.steps import valid_time

Kind = Literal["spread", "members", "spaghetti", "probability"]


def plot_ensemble(
    forecast: xr.Dataset, variable: str, kind: Kind = "spread", **options: Any
) -> Figure | GeoAxes:
    """An ensemble forecast as mean and spread, members, spaghetti or the chance of a threshold.

    options: those of `plot_spread`, `plot_stamps`, `plot_spaghetti` or `plot_probability`; None
    counts as not given.
    Raises DataError for another kind, and as these do.
    """
    draw: dict[str, Callable[..., Any]] = {
        "spread": plot_spread, "members": plot_stamps, "spaghetti": plot_spaghetti,
        "probability": plot_probability,
    }  # fmt: skip
    if kind not in draw:
        raise DataError(f"Ensembles are drawn as {', '.join(draw)}, not as '{kind}'.")
    given = {name: value for name, value in options.items() if value is not None}
    unknown = sorted(set(given) - set(signature(draw[kind]).parameters))
    if unknown:
        raise DataError(f"'{kind}' does not take {', '.join(unknown)}. Leave it out.")
    return draw[kind](forecast, variable, **given)


@takes_map_options
def plot_spread(
    forecast: xr.Dataset,
    variable: str,
    *,
    init_time: Any = None,
    lead_time: Lead | None = None,
    ax: GeoAxes | None = None,
    **options: Unpack[MapOptions],
) -> Figure | GeoAxes:
    """Ensemble mean as contours over the spread (standard deviation of the members) in colours.

    forecast: dims (realization, init_time, lead_time, latitude, longitude) in any order.
    init_time, lead_time: as in `plot_forecast`.
    """
    members = choose_members(forecast, variable, init_time, lead_time)
    mean = members.mean(MEMBERS, keep_attrs=True)
    spread = members.std(MEMBERS, ddof=1, keep_attrs=True)
    drawing = Drawing.of(options)
    look = replace(drawing.look(members), quantity=Quantity(is_difference=True), limits=None)
    colours = look.colours(
        look.differences(drawing.seen(spread)),
        limits=drawing.limits, levels=drawing.levels, cmap=drawing.cmap,
    )  # fmt: skip
    sheet = open_maps(mean, ax, drawing)
    [target] = sheet.flat
    image = draw_values(target, spread, look.differences(spread), colours)
    decorate(target, drawing, contours=mean)
    set_titles(target, f"{look.label}: mean and spread", times_label(mean))
    label = f"Spread of {members.sizes[MEMBERS]} members ({look.error_units})"
    sheet.add_bar(0, image, label, colours)
    return ax or sheet.figure


@takes_map_options
def plot_probability(
    forecast: xr.Dataset,
    variable: str,
    *,
    above: float | None = None,
    below: float | None = None,
    init_time: Any = None,
    lead_time: Lead | None = None,
    ax: GeoAxes | None = None,
    **options: Unpack[MapOptions],
) -> Figure | GeoAxes:
    """Share of the members above a threshold, or below one; in the display unit (0 °C, 990 hPa).

    Other arguments as in `plot_spread`. Raises DataError unless there is one threshold.
    """
    if (above is None) == (below is None):
        raise DataError(
            "A probability needs one threshold, either above or below, in the unit that the map "
            "shows, such as 0 (°C) or 990 (hPa)."
        )
    members = choose_members(forecast, variable, init_time, lead_time)
    drawing = Drawing.of(options)
    first = members.isel({MEMBERS: 0}, drop=True)
    look = drawing.look(first)
    values = look.values(members)
    event = values > above if above is not None else values < below
    axis = members.get_axis_num(MEMBERS)
    share = 100 * np.where(np.isnan(values).any(axis=axis), np.nan, event.mean(axis=axis))
    sheet = open_maps(first, ax, drawing)
    [target] = sheet.flat
    colours = colours_of(
        share, Quantity(), limits=(0, 100), cmap="GnBu", given_cmap=drawing.cmap,
        levels=10 if drawing.levels is None else drawing.levels,
    )  # fmt: skip
    image = draw_values(target, first, share, replace(colours, note=""))
    decorate(target, drawing)
    sign, threshold = (">", above) if above is not None else ("<", below)
    set_titles(target, f"{look.label} {sign} {threshold:g} {look.units}", times_label(first))
    sheet.add_bar(0, image, f"Probability (% of {members.sizes[MEMBERS]} members)", colours)
    return ax or sheet.figure


@takes_map_options
def plot_spaghetti(
    forecast: xr.Dataset,
    variable: str,
    *,
    truth: xr.Dataset | None = None,
    init_time: Any = None,
    lead_time: Lead | None = None,
    ax: GeoAxes | None = None,
    **options: Unpack[MapOptions],
) -> Figure | GeoAxes:
    """The same few contours (display unit) of every member, of their mean and of the truth.

    levels: the contours; by default three, at the quarters of the mean's range.
    Other arguments as in `plot_spread`; truth as in `plot_forecast`.
    """
    members = choose_members(forecast, variable, init_time, lead_time)
    drawing = Drawing.of(options)
    mean = members.mean(MEMBERS, keep_attrs=True)
    look = drawing.look(members)
    levels = drawing.levels
    if levels is None or isinstance(levels, int):
        levels = _quarters(look.values(mean), look.contour_interval, levels or 3)
    sheet = open_maps(mean, ax, drawing, bars=())
    [target] = sheet.flat
    draw_land(target)
    decorate(target, drawing)
    shades = [matplotlib.colormaps["viridis"](x) for x in np.linspace(0.1, 0.85, len(levels))]
    for _, member in members.groupby(MEMBERS, squeeze=False):
        one = member.squeeze(MEMBERS, drop=True)
        draw_isolines(target, one, look.values(one), levels, colours=shades, width=0.5, alpha=0.6)
    draw_isolines(target, mean, look.values(mean), levels, colours=shades, width=1.8)
    handles = [
        Line2D([], [], color=shade, linewidth=1.8, label=f"{level:g} {look.units}")
        for level, shade in zip(levels, shades, strict=True)
    ]
    if truth is not None:
        valid = valid_time(mean.init_time.values, mean.lead_time.values)
        true = true_field(truth, variable, valid, like=mean)
        dark = ["#111111"] * len(levels)
        draw_isolines(target, true, look.values(true), levels, colours=dark, width=1.4)
        handles.append(Line2D([], [], color="#111111", linewidth=1.4, label="truth"))
    draw_legend(target, handles)
    set_titles(target, f"{look.label}, {members.sizes[MEMBERS]} members", times_label(mean))
    return ax or sheet.figure


@takes_map_options
def plot_stamps(
    forecast: xr.Dataset,
    variable: str,
    *,
    init_time: Any = None,
    lead_time: Lead | None = None,
    columns: int = 5,
    ax: Sequence[GeoAxes] | None = None,
    **options: Unpack[MapOptions],
) -> Figure:
    """Every member on a small map of its own, in the same colours.

    ax: one map for each member, instead of a new figure. Other arguments as in `plot_spread`.
    """
    members = choose_members(forecast, variable, init_time, lead_time)
    count = members.sizes[MEMBERS]
    across = min(columns, count)
    drawing = Drawing.of(options)
    first = members.isel({MEMBERS: 0}, drop=True)
    look = drawing.look(first)
    values = look.values(members)
    colours = drawing.colours(look, [one for _, one in members.groupby(MEMBERS, squeeze=False)])
    sheet = open_maps(
        first, ax, drawing, width=drawing.inches or SHEET_INCHES, heading=True,
        rows=-(-count // across) if ax is None else 1, columns=across if ax is None else count,
        bars=((0, across - 1),),
    )  # fmt: skip
    if ax is None:
        sheet.set_heading(look.label, times_label(first).replace("\n", ", "))
    for empty in sheet.flat[count:]:
        empty.set_visible(False)
    for target, member, name in zip(sheet.flat, values, members[MEMBERS].values, strict=False):
        image = draw_values(target, first, member, colours, shading=drawing.shading_of(look))
        decorate(target, drawing)
        set_titles(target, f"{name}", "")
    sheet.add_bar(0, image, look.label_with_units, colours)
    return sheet.figure


def _quarters(values: np.ndarray, interval: float | None, count: int) -> list[float]:
    """`count` values that split the range evenly, at multiples of an interval."""
    low, high = round_limits(values)
    step = interval or round_up((high - low) / 40)
    shares = np.arange(1, count + 1) / (count + 1)
    quarters = [low + share * (high - low) for share in shares]
    return sorted({float(np.round(quarter / step) * step) for quarter in quarters})


def choose_members(
    forecast: xr.Dataset, variable: str, init_time: Any, lead_time: Lead | None
) -> xr.DataArray:
    """All members of one channel, start and lead: (realization, latitude, longitude), in order."""
    start, lead = choose_init(forecast, init_time), choose_lead(forecast, lead_time)
    field = channel(forecast, variable).sel(init_time=start, lead_time=lead)
    if MEMBERS not in field.dims or field.sizes[MEMBERS] < 2:
        raise DataError(
            f"'{variable}' is no ensemble: it has no dimension '{MEMBERS}' of two or more. "
            "Draw single forecasts with plot_forecast."
        )
    members = [as_field(field.isel({MEMBERS: [n]})) for n in range(field.sizes[MEMBERS])]
    return xr.concat(members, field[MEMBERS], combine_attrs="override", coords="minimal")
