"""Rank histograms: whether the truth lies among the members of an ensemble as one of them would."""

from collections.abc import Sequence
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from climlstm.plots import theme
from climlstm.plots.graphs import dress_axes, finish_grid, panel_grid, require_columns
from climlstm.plots.styles import lead_label, look_of_channel
from climlstm.steps import is_round_lead

COLUMNS = ("variable", "lead_time", "rank", "share")
SHOWN = 4
"""Lead times that are drawn, unless others are asked for."""


def plot_ranks(
    ranks: pd.DataFrame,
    *,
    leads: Sequence[Any] | None = None,
    columns: int = 3,
    width: float | None = None,
) -> Figure:
    """How often the truth has each rank among the members, over how often if ranks were equal.

    A panel for each variable, a line for each lead time. Flat at 1: reliable. High at both ends:
    too little spread; in the middle: too much; at one end: a bias.

    ranks: the table of the evaluator `rank_histogram`, of one region.
    leads: those to draw; None: four, from the first whole day to the last, or all where fewer.
    """
    hint = " The evaluator 'rank_histogram' makes one of an ensemble."
    require_columns(ranks, COLUMNS, "ranks", hint)
    region = ranks["region"].iloc[0] if "region" in ranks else None
    chosen = ranks if region is None else ranks[ranks["region"] == region]
    shown = _some(sorted(chosen["lead_time"].unique())) if leads is None else list(leads)
    names = list(dict.fromkeys(chosen["variable"].astype(str)))
    panels, figure = panel_grid(len(names), columns, width=width, size=(3.2, 2.4))
    count = int(chosen["rank"].max()) + 1
    shades = [matplotlib.colormaps["viridis"](x) for x in np.linspace(0.05, 0.85, len(shown))]
    for panel, name in zip(panels, names, strict=True):
        for lead, shade in zip(shown, shades, strict=True):
            own = chosen[(chosen["variable"] == name) & (chosen["lead_time"] == lead)]
            own = own.sort_values("rank")
            panel.step(
                own["rank"], own["share"] * count, where="mid", color=shade, linewidth=1.6,
                label=lead_label(lead), zorder=3,
            )  # fmt: skip
        panel.axhline(1.0, color=theme.quiet(), linewidth=0.6, zorder=1)
        dress_axes(panel, look_of_channel(name, None).label)
        panel.set_xlim(-0.5, count - 0.5)
        panel.set_ylim(bottom=0)
    title = f"Rank histogram, {count - 1} members"
    finish_grid(figure, panels, columns, title, "rank of the truth")
    return figure


def _some(leads: list[Any]) -> list[Any]:
    """A few of the lead times, evenly spaced over whole days, where there are any."""
    among = [lead for lead in leads if is_round_lead([lead]).all()] or leads
    places = np.unique(np.linspace(0, len(among) - 1, min(SHOWN, len(among))).round().astype(int))
    return [among[place] for place in places]
