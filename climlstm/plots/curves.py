"""Skill against lead time: the score table as curves."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from climlstm.errors import DataError
from climlstm.plots import theme
from climlstm.plots.graphs import (
    dress_axes,
    finish_grid,
    metric_name,
    panel_grid,
    require_columns,
    require_value,
)
from climlstm.plots.styles import look_of_channel
from climlstm.steps import lead_numbers

REQUIRED = ("variable", "lead_time", "metric", "model", "value")

_BASELINES: dict[str, dict[str, Any]] = {
    "persistence": {"color": "#8c8c8c", "linestyle": (0, (5, 2)), "linewidth": 1.3},
    "climatology": {"color": "#8c8c8c", "linestyle": (0, (1, 1.4)), "linewidth": 1.5},
    "damped": {"color": "#8c8c8c", "linestyle": (0, (5, 1.5, 1, 1.5)), "linewidth": 1.3},
    "linear": {"color": "#5a5a5a", "linestyle": "-", "linewidth": 1.2},
    "perfect model": {"color": theme.TEXT, "linestyle": (0, (6, 1.5, 1, 1.5)), "linewidth": 1.2},
}
"""Lines of the baselines: grey, told apart by their dashes."""

_MODEL_COLOURS = ("#0b62a4", "#d1495b", "#2a9d6f", "#e09f1f", "#7a4fa3", "#4fb3d1")
"""Distinct in hue and lightness, also for the colour-blind."""

_UNITLESS = ("acc", "pod", "far", "csi", "spread_skill")
_MARKS = {"acc": 0.6, "spread_skill": 1.0}
"""Where a line is drawn: the anomaly correlation below which a forecast is held useless
(Hollingsworth et al. 1980), and spread that agrees with the error."""


def plot_scores(
    scores: pd.DataFrame,
    *,
    metric: str = "rmse",
    region: str | None = None,
    variables: Sequence[str] | None = None,
    columns: int = 3,
    width: float | None = None,
    ax: Sequence[Axes] | None = None,
) -> Figure:
    """Curves of a score against lead time, one panel for each variable, one line for each model.

    scores: the table of `evaluate`: columns variable, level, lead_time, region, metric, model,
    value and, for the bands, ci_low and ci_high.
    region: the first one in the table, if not given.
    ax: one axes for each variable, instead of a new figure.
    Raises DataError for a metric, region or variable that is not in the table.
    """
    chosen = _select(scores, metric, region)
    names = list(variables) if variables is not None else list(dict.fromkeys(chosen["channel"]))
    for name in names:
        require_value(chosen["channel"], name, "scores for the variable")
    models = list(dict.fromkeys(chosen["model"]))
    panels, figure = panel_grid(len(names), columns, width=width, ax=ax)
    for panel, name in zip(panels, names, strict=True):
        rows = chosen[chosen["channel"] == name]
        look = look_of_channel(name, _units(rows, metric))
        _draw_panel(panel, rows, models, metric, look.conversion.scale)
        _dress(panel, look.label, metric, look.units)
    if ax is None:
        where = f", {chosen['region'].iloc[0]}" if "region" in chosen else ""
        finish_grid(
            figure,
            panels,
            columns,
            metric_name(metric) + where,
            f"lead time ({chosen['unit'].iloc[0]})",
        )
    else:
        panels[0].legend(frameon=False, fontsize=theme.size(8), labelcolor=theme.ink())
    return figure


def _select(scores: pd.DataFrame, metric: str, region: str | None) -> pd.DataFrame:
    """The rows of one metric and region, with `channel` (z500), `lead` and its `unit` added."""
    require_columns(scores, REQUIRED, "scores")
    require_value(scores["metric"], metric, "scores for the metric")
    chosen = scores[scores["metric"] == metric]
    if "region" in chosen:
        where = region if region is not None else chosen["region"].iloc[0]
        require_value(chosen["region"], where, "scores for the region")
        chosen = chosen[chosen["region"] == where]
    chosen = chosen[chosen["lead_time"].notna()]
    if chosen.empty:
        raise DataError(
            f"'{metric}' is one number for whole forecasts: it has no curve over leads."
        )
    numbers, unit = lead_numbers(chosen["lead_time"])
    chosen = chosen.assign(channel=_channels(chosen), lead=numbers, unit=unit)
    return chosen.sort_values("lead", kind="stable")


def _channels(scores: pd.DataFrame) -> pd.Series:
    """'z500' for variable z at level 500, the variable's own name where there is no level."""
    names = scores["variable"].astype(str)
    if "level" not in scores:
        return names
    level = pd.to_numeric(scores["level"], errors="coerce").astype("float64")
    written = level.map(lambda value: f"{value:g}" if np.isfinite(value) else "")
    redundant = [name.endswith(at) for name, at in zip(names, written, strict=True)]
    return names + written.where(~np.array(redundant), "")


def _units(scores: pd.DataFrame, metric: str) -> str | None:
    """The unit that the table names, '1' for a score without one; None: that of the variable."""
    named = [] if "units" not in scores else list(scores["units"].dropna())
    if named:
        return str(named[0])
    return "1" if metric in _UNITLESS else None


def _draw_panel(
    ax: Axes, scores: pd.DataFrame, models: list[str], metric: str, scale: float
) -> None:
    own = [model for model in models if model not in _BASELINES]
    for model in [*own, *(name for name in _BASELINES if name in models)]:
        rows = scores[scores["model"] == model]
        if rows.empty:
            continue
        line: dict[str, Any] = _BASELINES.get(model) or {
            "color": _MODEL_COLOURS[own.index(model) % len(_MODEL_COLOURS)],
            "linewidth": 2.0,
            "marker": "o",
            "markersize": 3.0,
        }
        ax.plot(rows["lead"], rows["value"] * scale, label=model, zorder=3, **line)
        if {"ci_low", "ci_high"} <= set(rows.columns) and rows["ci_low"].notna().any():
            ax.fill_between(
                rows["lead"], rows["ci_low"] * scale, rows["ci_high"] * scale,
                color=line["color"], alpha=0.16, linewidth=0, zorder=2,
            )  # fmt: skip
    if metric in _MARKS:
        ax.axhline(_MARKS[metric], color=theme.quiet(), linewidth=0.6, zorder=1)
    if scores["value"].min() < 0:
        ax.axhline(0.0, color=theme.quiet(), linewidth=0.6, zorder=1)


def _dress(ax: Axes, title: str, metric: str, units: str) -> None:
    dress_axes(ax, title, units)
    ax.set_xlim(left=0)
    if metric == "acc":
        ax.set_ylim(top=1.0)
    elif ax.dataLim.y0 >= 0:
        ax.set_ylim(bottom=0)
