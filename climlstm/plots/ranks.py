"""Whether an ensemble is honest: ranks of the truth, reliability of events, spread beside error."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from climlstm.plots import theme
from climlstm.plots.curves import plot_scores
from climlstm.plots.graphs import dress_axes, finish_grid, panel_grid, require_columns
from climlstm.plots.styles import lead_label, look_of_channel
from climlstm.steps import is_round_lead

RANKS = ("variable", "lead_time", "rank", "share")
EVENTS = ("event", "lead_time", "probability", "frequency", "share")
SPREAD = {"rmse": "error of the mean", "spread": "spread"}
SHOWN = 4
"""Lead times that are drawn, unless others are asked for."""


def plot_ranks(
    ranks: pd.DataFrame, *, leads: Sequence[Any] | None = None, columns: int = 3,
    width: float | None = None,
) -> Figure:  # fmt: skip
    """How often the truth has each rank among the members, over how often if ranks were equal.

    A panel for each variable, a line for each lead time. Flat at 1: reliable. High at both ends:
    too little spread; in the middle: too much; at one end: a bias.

    ranks: the table of the evaluator `rank_histogram`, of one region.
    leads: those to draw; None: four, from the first whole day to the last, or all where fewer.
    """
    hint = " The evaluator 'rank_histogram' makes one of an ensemble."
    require_columns(ranks, RANKS, "ranks", hint)
    count = int(ranks["rank"].max()) + 1

    def draw(panel: Axes, own: pd.DataFrame, **line: Any) -> None:
        own = own.sort_values("rank")
        panel.step(own["rank"], own["share"] * count, where="mid", linewidth=1.6, **line)

    panels, figure = _panels(ranks, leads, columns, width, draw)
    for name, panel in panels.items():
        panel.axhline(1.0, color=theme.quiet(), linewidth=0.6, zorder=1)
        dress_axes(panel, look_of_channel(name, None).label)
        panel.set(xlim=(-0.5, count - 0.5), ylim=(0, None))
    title = f"Rank histogram, {count - 1} members"
    finish_grid(figure, [*panels.values()], columns, title, "rank of the truth")
    return figure


def plot_reliability(
    table: pd.DataFrame, *, leads: Sequence[Any] | None = None, columns: int = 3,
    width: float | None = None,
) -> Figure:  # fmt: skip
    """How often an event came, against the probability with which it was foretold.

    A panel for each event, a line for each lead time; the larger a point, the more often that
    probability was given. Flatter than the diagonal: too little spread.

    table: of the evaluator `reliability`, of one model. Other arguments as in `plot_ranks`.
    """
    hint = " The evaluator 'reliability' makes one of an ensemble."
    require_columns(table, EVENTS, "reliability", hint)

    def draw(panel: Axes, own: pd.DataFrame, **line: Any) -> None:
        own = own.dropna(subset="frequency").sort_values("probability")
        x, y = own["probability"], own["frequency"]
        panel.plot(x, y, linewidth=1.4, **line)
        size = 4 + 60 * np.sqrt(own["share"].to_numpy())
        panel.scatter(x, y, size, color=line["color"], zorder=3, linewidths=0)

    panels, figure = _panels(table, leads, columns, width, draw)
    for event, panel in panels.items():
        panel.axline((0, 0), slope=1, color=theme.quiet(), linewidth=0.6, zorder=1)
        dress_axes(panel, event)
        panel.set(xlim=(-0.03, 1.03), ylim=(-0.03, 1.03))
    finish_grid(figure, [*panels.values()], columns, "How often it came", "probability foretold")
    return figure


def calibration_figures(
    scores: pd.DataFrame, tables: Mapping[str, pd.DataFrame], model: str
) -> dict[str, Figure]:
    """Figures of an ensemble's calibration, by name: those for which an evaluation has numbers."""
    figures = {}
    own = scores[(scores["model"] == model) & scores["metric"].isin(SPREAD)]
    if own["metric"].nunique() == len(SPREAD):
        both = own.assign(model=own["metric"].map(SPREAD), metric="spread_and_error")
        figures["spread_and_error"] = plot_scores(both, metric="spread_and_error")
    for name, table in tables.items():
        rows = table[table["model"] == model]
        for columns, plot in ((RANKS, plot_ranks), (EVENTS, plot_reliability)):
            if len(rows) and set(columns) <= set(rows.columns):
                figures[name] = plot(rows)
    return figures


def _panels(
    table: pd.DataFrame, leads: Sequence[Any] | None, columns: int, width: float | None,
    draw: Callable[..., None],
) -> tuple[dict[str, Axes], Figure]:  # fmt: skip
    """A panel for each event or variable of the first region, in it a line for each lead time."""
    by = "event" if "event" in table else "variable"
    chosen = table if "region" not in table else table[table["region"] == table["region"].iloc[0]]
    shown = _some(sorted(chosen["lead_time"].unique())) if leads is None else list(leads)
    names = list(dict.fromkeys(chosen[by].astype(str)))
    panels, figure = panel_grid(len(names), columns, width=width, size=(3.2, 2.6))
    shades = [matplotlib.colormaps["viridis"](x) for x in np.linspace(0.05, 0.85, len(shown))]
    for panel, name in zip(panels, names, strict=True):
        for lead, shade in zip(shown, shades, strict=True):
            own = chosen[(chosen[by] == name) & (chosen["lead_time"] == lead)]
            draw(panel, own, color=shade, label=lead_label(lead), zorder=3)
    return dict(zip(names, panels, strict=True)), figure


def _some(leads: list[Any]) -> list[Any]:
    """A few of the lead times, evenly spaced over whole days, where there are any."""
    among = [lead for lead in leads if is_round_lead([lead]).all()] or leads
    places = np.unique(np.linspace(0, len(among) - 1, min(SHOWN, len(among))).round().astype(int))
    return [among[place] for place in places]
