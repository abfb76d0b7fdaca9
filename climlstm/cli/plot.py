"""The command `plot`: what `climlstm.plots` draws, with the same options by the same names."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from climlstm.cli.printing import console

Store = Annotated[Path, typer.Argument(help="A forecast store.")]
Out = Annotated[Path, typer.Option(help="The picture to write (PNG, PDF, SVG).")]
Channel = Annotated[str, typer.Option(help="Channel to draw, such as t2m.")]
Init = Annotated[str | None, typer.Option(help="Initial time; by default the first.")]
Leads = Annotated[list[str] | None, typer.Option(help="Lead, such as 24h; several make a strip.")]
Lines = Annotated[str | None, typer.Option(help="Channel to draw as lines.")]
Interval = Annotated[float | None, typer.Option(help="Spacing of the lines.")]
Wind = Annotated[str | None, typer.Option(help="Channels of the wind, such as u10,v10.")]
WindAs = Annotated[Literal["quiver", "barbs", "streamlines"], typer.Option(help="Kind of arrows.")]
Projection = Annotated[str | None, typer.Option(help="Projection by name.")]
Region = Annotated[str | None, typer.Option(help="Region by name, or W,E,S,N in degrees.")]
Units = Annotated[str | None, typer.Option(help="Display unit, such as degF.")]
Cmap = Annotated[str | None, typer.Option(help="Colour map of matplotlib.")]
Limits = Annotated[str | None, typer.Option(help="Ends of the colours, such as -10,30.")]
Levels = Annotated[str | None, typer.Option(help="Number of colour steps, or edges: 0,1,2,5,10.")]
Level = Annotated[list[float] | None, typer.Option(help="Contour of spaghetti; may be repeated.")]
Difference = Annotated[bool | None, typer.Option(help="Whether it is a difference; else found.")]
Shading = Annotated[Literal["smooth", "cells"] | None, typer.Option(help="Interpolated, or not.")]
Coasts = Annotated[Literal["auto", "110m", "50m", "10m", "none"], typer.Option(help="Coasts.")]
Gridlines = Annotated[bool, typer.Option(help="Labelled meridians and parallels.")]
Letters = Annotated[bool, typer.Option(help="Letters at the panels.")]
Points = Annotated[list[str] | None, typer.Option(help="Place to mark, NAME=LON,LAT; repeatable.")]
Width = Annotated[str | None, typer.Option(help="Width: inches, or such as 89mm.")]
Dpi = Annotated[float | None, typer.Option(help="Dots per inch.")]
Truth = Annotated[bool, typer.Option(help="Beside truth and error.")]
Ensemble = Annotated[
    Literal["mean", "spread", "members", "spaghetti", "probability"],
    typer.Option(help="What to show of an ensemble."),
]
Above = Annotated[float | None, typer.Option(help="Threshold of a probability.")]
Below = Annotated[float | None, typer.Option(help="Threshold of a probability.")]


def plot(
    store: Store,
    out: Out,
    variable: Channel,
    init: Init = None,
    lead: Leads = None,
    contours: Lines = None,
    contour_interval: Interval = None,
    wind: Wind = None,
    wind_as: WindAs = "quiver",
    projection: Projection = None,
    region: Region = None,
    units: Units = None,
    cmap: Cmap = None,
    limits: Limits = None,
    levels: Levels = None,
    level: Level = None,
    difference: Difference = None,
    shading: Shading = None,
    coastlines: Coasts = "auto",
    gridlines: Gridlines = False,
    letters: Letters = False,
    point: Points = None,
    width: Width = None,
    dpi: Dpi = None,
    truth: Truth = True,
    ensemble: Ensemble = "mean",
    above: Above = None,
    below: Below = None,
) -> None:
    """Map of a forecast (of an ensemble: its mean), the truth and the error; offline.

    Contours, limits, levels and thresholds are in the unit that the map shows, such as hPa.
    """
    edges = level or _numbers(levels, "levels")
    options: dict[str, Any] = {
        "projection": projection, "units": units, "cmap": cmap, "difference": difference,
        "shading": shading, "contour_interval": contour_interval, "wind_as": wind_as,
        "coastlines": coastlines, "gridlines": gridlines, "letters": letters, "dpi": dpi,
        "region": _numbers(region, "region", 4) if region and _EDGES.match(region) else region,
        "limits": _numbers(limits, "limits", 2),
        "levels": int(edges[0]) if edges and len(edges) == 1 and not level else edges,
        "points": _places(point or []),
        "width": float(width) if width and width.replace(".", "").isdigit() else width,
    }  # fmt: skip
    over = {"contours": contours, "wind": None if wind is None else tuple(wind.split(","))}
    thresholds = {"above": above, "below": below}
    _draw(store, out, variable, ensemble, init, lead or [], truth, over, thresholds, options)


_EDGES = re.compile(r"[-+\d. ]+,")
"""How four numbers begin; other regions have names."""


def _draw(
    store: Path,
    out: Path,
    variable: str,
    ensemble: Any,
    init: str | None,
    leads: Sequence[str],
    with_truth: bool,
    over: dict[str, Any],
    thresholds: dict[str, Any],
    options: dict[str, Any],
) -> None:
    import dask
    from dask import threaded

    from climlstm import ensemble_mean, open_forecasts, plots

    dask.config.set(scheduler=threaded.get)  # by its name dask imports its cluster first
    forecasts = open_forecasts(store)
    options["init_time"] = init
    for name in (variable, over["contours"], *(over["wind"] or ())):
        if name:  # a wrong one is told before the truth is opened, which takes longer
            plots.channel(forecasts, name)
    plots.choose_init(forecasts, init)
    for each in leads:
        plots.choose_lead(forecasts, each)
    if with_truth and ensemble in ("mean", "spaghetti"):
        options["truth"] = forecasts.climlstm.truth()
    lead = leads[0] if leads else None
    if ensemble != "mean":
        given = {**over, **thresholds, **options, "lead_time": lead}
        figure = plots.plot_ensemble(forecasts, variable, ensemble, **given)
    elif len(leads) > 1:
        mean, lines = ensemble_mean(forecasts), over["contours"]
        figure = plots.plot_strip(mean, variable, lead_times=leads, contours=lines, **options)
    else:
        figure = plots.plot_forecast(
            ensemble_mean(forecasts), variable, lead_time=lead, **over, **options
        )
    plots.save(figure, out)
    console.print(f"wrote {out}")


def _numbers(text: str | None, option: str, count: int | None = None) -> tuple[float, ...] | None:
    """Numbers with commas between them. Raises BadParameter for another text or count."""
    if text is None:
        return None
    try:
        found = tuple(float(part) for part in text.split(","))
    except ValueError:
        found = ()
    if not found or (count is not None and len(found) != count):
        wanted = "numbers" if count is None else f"{count} numbers"
        raise typer.BadParameter(f"expected {wanted} with commas, not '{text}'", param_hint=option)
    return found


def _places(texts: Sequence[str]) -> dict[str, tuple[float, float]] | None:
    """Longitude and latitude by name. Raises BadParameter for a text that is no NAME=LON,LAT."""
    places: dict[str, tuple[float, float]] = {}
    for text in texts:
        name, _, where = text.rpartition("=")
        numbers = _numbers(where, "point", 2)
        assert numbers is not None
        places[name] = (numbers[0], numbers[1])
    return places or None
