"""Figures of ENSO skill: by lead time, by month of the start, and the index itself."""

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from climlstm.plots.graphs import dress_axes, finish_grid, panel_grid
from climlstm.steps import lead_numbers, lead_text
from climlstm_climate.series import FEWEST

if TYPE_CHECKING:
    from climlstm_climate.enso import ENSO

NAMES = {"nino34": "Niño3.4", "oni": "ONI", "iod": "IOD (dipole mode index)"}
INITIALS = "JFMAMJJASOND"
COLOURS = ("#0b62a4", "#d1495b", "#2a9d6f", "#e09f1f", "#7a4fa3", "#8c8c8c")
USEFUL = 0.5
"""Correlation above which seasonal forecasts are held useful."""


def figures(evaluator: "ENSO", scores: pd.DataFrame) -> dict[str, Figure]:
    """All figures by title; scores: cases of all models, with a column `model`."""
    models = list(dict.fromkeys(scores["model"]))
    of_model = {m: scores[scores["model"] == m].drop(columns="model") for m in models}
    made = {"Correlation by lead time": skill(evaluator, of_model)}
    for name in ("nino34", "iod"):
        if name in set(scores["index"]):
            made[f"{NAMES[name]}, correlation by month of the start"] = barrier(
                evaluator, of_model, name
            )
            made[f"{NAMES[name]} as forecast"] = plumes(of_model[models[0]], name)
    return made


def skill(evaluator: "ENSO", of_model: dict[str, pd.DataFrame]) -> Figure:
    """Correlation by lead time, a panel for each index, a line for each model, with intervals."""
    tables = {m: evaluator.summarise(rows) for m, rows in of_model.items()}
    tables = {m: t[t["metric"] == "correlation"] for m, t in tables.items() if len(t)}
    names = [n for n in NAMES if any((t["variable"] == n).any() for t in tables.values())]
    panels, figure = panel_grid(max(1, len(names)), 3)
    unit = ""
    for panel, name in zip(panels, names, strict=False):
        for number, (model, table) in enumerate(tables.items()):
            rows = table[table["variable"] == name]
            if rows.empty:
                continue
            colour = COLOURS[number % len(COLOURS)]
            x, unit = lead_numbers(rows["lead_time"])
            width = 2.0 if number == 0 else 1.2
            panel.plot(x, rows["value"], label=model, color=colour, linewidth=width)
            if number == 0 and rows["ci_low"].notna().any():
                panel.fill_between(x, rows["ci_low"], rows["ci_high"], color=colour, alpha=0.16)
        panel.axhline(USEFUL, color="#999999", linewidth=0.6)
        panel.set_ylim(top=1.0)
        dress_axes(panel, NAMES[name])
    finish_grid(figure, panels, 3, "Correlation of the anomaly", f"lead time ({unit})")
    return figure


def barrier(evaluator: "ENSO", of_model: dict[str, pd.DataFrame], name: str) -> Figure:
    """Correlation by month of the start and lead time, a panel for each model."""
    tables = {m: evaluator.by_start(rows) for m, rows in of_model.items()}
    tables = {m: t[t["index"] == name] for m, t in tables.items() if (t["index"] == name).any()}
    panels, figure = panel_grid(max(1, len(tables)), 3)
    mesh = None
    for panel, (model, table) in zip(panels, tables.items(), strict=False):
        square = table.pivot(index="start_month", columns="lead_time", values="correlation")
        square = square.reindex(range(1, 13))
        x, _ = lead_numbers(square.columns)
        drawn = {"vmin": -1, "vmax": 1, "cmap": "RdBu_r", "shading": "nearest"}
        mesh = panel.pcolormesh(x, np.arange(1, 13), square.to_numpy(), **drawn)
        panel.set_yticks(range(1, 13), list(INITIALS))
        panel.set_ylim(12.5, 0.5)
        dress_axes(panel, model)
    if mesh is not None:
        figure.colorbar(mesh, ax=panels, shrink=0.8, label="correlation")
    for panel in panels:
        panel.set_xlabel("lead time", size=8.5)
    panels[0].set_ylabel("month of the start", size=8.5)
    figure.suptitle(f"{NAMES[name]}: correlation by month of the start", x=0.01, ha="left", size=12)
    return figure


def plumes(rows: pd.DataFrame, name: str, leads: int = 3) -> Figure:
    """The true index, and what forecasts of a few lead times said of the same moment."""
    own = rows[rows["index"] == name].dropna(subset=["forecast", "truth"])
    panels, figure = panel_grid(1, 1, width=8.0)
    truth = own.drop_duplicates("valid_time").sort_values("valid_time")
    panels[0].plot(_dates(truth["valid_time"]), truth["truth"], color="#222222", label="truth")
    all_leads = sorted(own["lead_time"].unique())
    places = np.unique(np.linspace(0, len(all_leads) - 1, leads + 1).round().astype(int))[1:]
    for number, place in enumerate(places):
        part = own[own["lead_time"] == all_leads[place]].sort_values("valid_time")
        if len(part) >= FEWEST:
            label = f"forecast {lead_text(all_leads[place])} before"
            x = _dates(part["valid_time"])
            panels[0].plot(x, part["forecast"], color=COLOURS[number], linewidth=1.2, label=label)
    panels[0].axhline(0, color="#999999", linewidth=0.6)
    dress_axes(panels[0], NAMES[name], "K")
    finish_grid(figure, panels, 1, f"{NAMES[name]} as forecast", "")
    return figure


def _dates(times: pd.Series) -> Any:
    """Years as decimal numbers, in any calendar."""
    return np.array([t.year + (t.month - 0.5) / 12 + (t.day - 15) / 365 for t in times])
