"""Trials of a sweep: how their losses fell, and what each key did to them."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from climlstm.errors import DataError
from climlstm.plots import theme
from climlstm.plots.graphs import dress_axes, label_across
from climlstm.plots.sheet import new_picture

BEST, OTHERS = "#d1495b", "#0b62a4"


def plot_sweep(trials: pd.DataFrame, curves: pd.DataFrame, keys: list[str]) -> Figure:
    """Validation losses of trials: over time, and against each key, the best in red.

    trials: `trial`, `valid_loss`, a column for each key; curves: `trial`, `validation`,
    `valid_loss`. keys: one at least.
    Raises DataError where no trial has a loss.
    """
    scored = trials[trials["valid_loss"].notna()].sort_values("valid_loss")
    if scored.empty:
        raise DataError("No trial has a validation loss, so there is nothing to draw.")
    best = scored["trial"].iloc[0]
    figure = new_picture(3.1 * (1 + len(keys)), 3.0)
    figure.set_layout_engine("constrained")
    over_time, *against = figure.subplots(1, 1 + len(keys), sharey=True).tolist()
    for trial, curve in curves.groupby("trial"):
        first = trial == best
        over_time.plot(
            curve["validation"], curve["valid_loss"], marker="o", markersize=3,
            color=BEST if first else OTHERS, alpha=1.0 if first else 0.45,
            linewidth=1.6 if first else 1.0, zorder=3 if first else 2,
        )  # fmt: skip
    over_time.set_ylabel("validation loss", size=theme.size(8.5), color=theme.ink())
    label_across(over_time, "validation")
    over_time.set_yscale("log")
    for axes, key in zip(against, keys, strict=True):
        _scatter(axes, scored, key)
    for axes in (over_time, *against):
        dress_axes(axes)
    return figure


def _scatter(axes: Axes, scored: pd.DataFrame, key: str) -> None:
    """Lowest loss of each trial against one key; names and lists side by side."""
    values = scored[key]
    numbers = pd.api.types.is_numeric_dtype(values)
    if numbers:
        places = values.to_numpy(dtype=float)
        if places.min() > 0 and places.max() / places.min() > 20:
            axes.set_xscale("log")
    else:
        names = sorted(values.astype(str).unique(), key=lambda name: (len(name), name))
        places = values.astype(str).map(names.index).to_numpy(dtype=float)
        axes.set_xticks(np.arange(len(names)), names)
        axes.set_xlim(-0.5, len(names) - 0.5)
    colours = [BEST, *[OTHERS] * (len(scored) - 1)]
    axes.scatter(places, scored["valid_loss"], c=colours, s=18, zorder=3)
    label_across(axes, key)
