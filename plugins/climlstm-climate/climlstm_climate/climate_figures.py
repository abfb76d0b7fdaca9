"""Figures of a long rollout: bias map, zonal mean, spectrum, and the global mean of each year."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from climlstm.plots.graphs import dress_axes, finish_grid, panel_grid
from climlstm.plots.styles import look_of_channel

FORECAST, TRUTH = "#0b62a4", "#222222"


def figures(scores: pd.DataFrame) -> dict[str, Figure]:
    """All figures by title, of the first initialisation; scores: the cases of `climate`."""
    first = scores[scores["init_time"] == scores["init_time"].iloc[0]]
    made = {}
    for kind, (draw, title, across) in {
        "map": (_map, "Bias of the time mean", "degrees east"),
        "zonal": (_zonal, "Zonal mean", "degrees north"),
        "spectrum": (_spectrum, "Power by wavenumber along rows", "wavenumber"),
        "series": (_lines, "Global mean of each year", "year of the series"),
    }.items():
        rows = first[first["kind"] == kind]
        names = list(dict.fromkeys(rows["variable"]))
        if not names:
            continue
        panels, figure = panel_grid(len(names), 3)
        for panel, name in zip(panels, names, strict=True):
            draw(panel, rows[rows["variable"] == name])
            dress_axes(panel, look_of_channel(name, None).label)
        finish_grid(figure, panels, 3, title, across)
        made[title] = figure
    return made


def _map(ax: Axes, rows: pd.DataFrame) -> None:
    bias = rows["forecast"] - rows["reference"]
    most = float(np.nanpercentile(np.abs(bias), 99)) or 1.0
    colours = {"c": bias, "cmap": "RdBu_r", "vmin": -most, "vmax": most}
    drawn = ax.scatter(rows["longitude"], rows["latitude"], s=6, marker="s", **colours)
    ax.figure.colorbar(drawn, ax=ax, shrink=0.8)


def _lines(ax: Axes, rows: pd.DataFrame, across: str = "x") -> None:
    for column, colour, label in (
        ("reference", TRUTH, "truth"),
        ("forecast", FORECAST, "rollout"),
    ):
        own = rows.dropna(subset=[column])
        ax.plot(own[across], own[column], color=colour, label=label)


def _zonal(ax: Axes, rows: pd.DataFrame) -> None:
    _lines(ax, rows, "latitude")


def _spectrum(ax: Axes, rows: pd.DataFrame) -> None:
    _lines(ax, rows)
    ax.loglog()
