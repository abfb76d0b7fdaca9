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
    drawn = {"map": _map, "zonal": _zonal, "spectrum": _spectrum, "series": _series}
    titles = {
        "map": "Bias of the time mean",
        "zonal": "Zonal mean",
        "spectrum": "Power by wavenumber along rows",
        "series": "Global mean of each year",
    }
    made = {}
    for kind, draw in drawn.items():
        rows = first[first["kind"] == kind]
        names = list(dict.fromkeys(rows["variable"]))
        if not names:
            continue
        panels, figure = panel_grid(len(names), 3)
        for panel, name in zip(panels, names, strict=True):
            draw(panel, rows[rows["variable"] == name])
            dress_axes(panel, look_of_channel(name, None).label)
        across = {
            "map": "degrees east",
            "zonal": "degrees north",
            "spectrum": "wavenumber",
            "series": "year of the series",
        }
        finish_grid(figure, panels, 3, titles[kind], across[kind])
        made[titles[kind]] = figure
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
    ax.set_xscale("log")
    ax.set_yscale("log")


def _series(ax: Axes, rows: pd.DataFrame) -> None:
    _lines(ax, rows)
