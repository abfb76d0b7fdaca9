"""Skill against lead time: the score table as curves."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from climlstm.errors import DataError, nearest
from climlstm.plots.sheet import DPI, QUIET, RULE, TEXT, Picture
from climlstm.plots.styles import look_of_channel

REQUIRED = ("variable", "lead_time", "metric", "model", "value")

_BASELINES: dict[str, dict[str, Any]] = {
    "persistence": {"color": "#8c8c8c", "linestyle": (0, (5, 2)), "linewidth": 1.3},
    "climatology": {"color": "#8c8c8c", "linestyle": (0, (1, 1.4)), "linewidth": 1.5},
    "perfect model": {"color": TEXT, "linestyle": (0, (6, 1.5, 1, 1.5)), "linewidth": 1.2},
}
"""What models are measured against, in greys: known by their dashes."""

_MODEL_COLOURS = ("#0b62a4", "#d1495b", "#2a9d6f", "#e09f1f", "#7a4fa3", "#4fb3d1")
"""Distinct in hue and lightness, also for the colour-blind."""

_ACRONYMS = ("rmse", "mae", "acc", "crps", "pod", "far", "csi")
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
        _check(name, chosen["channel"], "variable")
    models = list(dict.fromkeys(chosen["model"]))
    panels, figure = _panels(len(names), columns, width, ax)
    for panel, name in zip(panels, names, strict=True):
        rows = chosen[chosen["channel"] == name]
        look = look_of_channel(name, _units(rows, metric))
        _draw_panel(panel, rows, models, metric, look.conversion.scale)
        _dress(panel, look.label, metric, look.units)
    handles, labels = panels[0].get_legend_handles_labels()
    if ax is None:
        for panel in panels[-min(columns, len(names)) :]:
            panel.set_xlabel("lead time (days)", size=8.5, color=TEXT)
        figure.legend(
            handles,
            labels,
            loc="outside upper right" if min(columns, len(names)) > 1 else "outside lower center",
            ncols=len(labels),
            frameon=False,
            fontsize=8.5,
            labelcolor=TEXT,
        )
        where = str(chosen["region"].iloc[0]) if "region" in chosen else ""
        figure.suptitle(
            f"{_in_words(metric)}{', ' + where if where else ''}",
            x=0.01, ha="left", size=12, weight="bold", color=TEXT,
        )  # fmt: skip
    else:
        panels[0].legend(frameon=False, fontsize=8, labelcolor=TEXT)
    return figure


def _select(scores: pd.DataFrame, metric: str, region: str | None) -> pd.DataFrame:
    """The rows of one metric and region, with `channel` (z500) and `days` added."""
    missing = [column for column in REQUIRED if column not in scores.columns]
    if missing:
        raise DataError(
            f"A table of scores has the columns {', '.join(REQUIRED)}; "
            f"missing: {', '.join(missing)}."
        )
    _check(metric, scores["metric"], "metric")
    chosen = scores[scores["metric"] == metric]
    if "region" in chosen:
        where = region if region is not None else chosen["region"].iloc[0]
        _check(where, chosen["region"], "region")
        chosen = chosen[chosen["region"] == where]
    chosen = chosen[chosen["lead_time"].notna()]
    if chosen.empty:
        raise DataError(
            f"'{metric}' is one number for whole forecasts: it has no curve over leads."
        )
    days = pd.to_timedelta(chosen["lead_time"]) / pd.Timedelta(days=1)
    return chosen.assign(channel=_channels(chosen), days=days).sort_values("days", kind="stable")


def _channels(scores: pd.DataFrame) -> pd.Series:
    """'z500' for variable z at level 500, the variable's own name where there is no level."""
    names = scores["variable"].astype(str)
    if "level" not in scores:
        return names
    level = pd.to_numeric(scores["level"], errors="coerce").astype("float64")
    written = level.map(lambda value: f"{value:g}" if np.isfinite(value) else "")
    redundant = [name.endswith(at) for name, at in zip(names, written, strict=True)]
    return names + written.where(~np.array(redundant), "")


def _in_words(metric: str) -> str:
    """'RMSE', 'Position error'."""
    first, *rest = metric.split("_")
    first = first.upper() if first in _ACRONYMS else first.capitalize()
    return " ".join([first, *rest])


def _check(name: str, known: pd.Series, what: str) -> None:
    there = list(dict.fromkeys(map(str, known)))
    if name not in there:
        raise DataError(
            f"The table has no scores for the {what} '{name}'.{nearest(str(name), there)} "
            f"It has: {', '.join(there) or 'nothing'}."
        )


def _units(scores: pd.DataFrame, metric: str) -> str | None:
    """The unit that the table names, '1' for a score without one; None: that of the variable."""
    named = [] if "units" not in scores else list(scores["units"].dropna())
    if named:
        return str(named[0])
    return "1" if metric in _UNITLESS else None


def _panels(
    count: int, columns: int, width: float | None, ax: Sequence[Axes] | None
) -> tuple[list[Axes], Figure]:
    if ax is not None:
        given = list(np.ravel(np.asarray(ax, dtype=object)))
        if len(given) != count:
            raise DataError(f"ax has {len(given)} axes, but {count} variables are drawn.")
        return given, given[0].figure
    across = min(columns, count)
    rows = -(-count // across)
    inches = width or max(6.4, 1.0 + 3.6 * across)
    figure = Picture(figsize=(inches, 0.7 + 2.7 * rows), dpi=DPI, layout="constrained")
    return [figure.add_subplot(rows, across, index + 1) for index in range(count)], figure


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
        ax.plot(rows["days"], rows["value"] * scale, label=model, zorder=3, **line)
        if {"ci_low", "ci_high"} <= set(rows.columns) and rows["ci_low"].notna().any():
            ax.fill_between(
                rows["days"], rows["ci_low"] * scale, rows["ci_high"] * scale,
                color=line["color"], alpha=0.16, linewidth=0, zorder=2,
            )  # fmt: skip
    if metric in _MARKS:
        ax.axhline(_MARKS[metric], color=QUIET, linewidth=0.6, zorder=1)
    if scores["value"].min() < 0:
        ax.axhline(0.0, color=QUIET, linewidth=0.6, zorder=1)


def _dress(ax: Axes, title: str, metric: str, units: str) -> None:
    dress_axes(ax, title, units)
    ax.set_xlim(left=0)
    if metric == "acc":
        ax.set_ylim(top=1.0)
    elif ax.dataLim.y0 >= 0:
        ax.set_ylim(bottom=0)


def dress_axes(ax: Axes, title: str, units: str) -> None:
    """Title on the left, unit on the right, a quiet frame and grid."""
    ax.set_title(title, loc="left", size=9.5, weight="bold", color=TEXT)
    if units:
        ax.set_title(units, loc="right", size=8, color=QUIET)
    ax.grid(color=RULE, linewidth=0.6)
    ax.set_axisbelow(True)
    ax.spines[["top", "right"]].set_visible(False)
    ax.spines[["left", "bottom"]].set(linewidth=0.6, color=QUIET)
    ax.tick_params(which="both", labelsize=8, color=QUIET, labelcolor=TEXT, width=0.6, length=3)
