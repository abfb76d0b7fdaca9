"""Graphs over plain axes: checks of their tables, grids of panels, frames and legends."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from climlstm.errors import DataError, nearest
from climlstm.plots import theme
from climlstm.plots.sheet import new_picture

_ACRONYMS = ("rmse", "mae", "acc", "crps", "pod", "far", "csi")


def require_columns(table: pd.DataFrame, columns: Sequence[str], what: str, hint: str = "") -> None:
    """Raise DataError, with the hint where there is one, for a table that lacks columns."""
    missing = [column for column in columns if column not in table]
    if missing:
        raise DataError(
            f"A table of {what} has the columns {', '.join(columns)}; missing: "
            f"{', '.join(missing)}.{hint}"
        )


def require_value(values: pd.Series, wanted: str, what: str) -> None:
    """Raise DataError, with the values that there are, where a column lacks one."""
    there = list(dict.fromkeys(map(str, values)))
    if wanted not in there:
        raise DataError(
            f"The table has no {what} '{wanted}'.{nearest(str(wanted), there)} "
            f"It has: {', '.join(there) or 'nothing'}."
        )


def metric_name(metric: str) -> str:
    """A metric as people write it: 'RMSE', 'Position error'."""
    first, *rest = metric.split("_")
    first = first.upper() if first in _ACRONYMS else first.capitalize()
    return " ".join([first, *rest])


def panel_grid(
    count: int,
    columns: int,
    *,
    width: float | None = None,
    size: tuple[float, float] = (3.6, 2.7),
    ax: Sequence[Axes] | None = None,
) -> tuple[list[Axes], Figure]:
    """Axes for so many panels, row after row, and their figure; those of `ax` where it is given.

    size: width and height of a panel, inches; width: of the whole figure.
    """
    if ax is not None:
        given = list(np.ravel(np.asarray(ax, dtype=object)))
        if len(given) != count:
            raise DataError(f"ax has {len(given)} axes, but {count} variables are drawn.")
        return given, given[0].figure
    across = min(columns, count)
    rows = -(-count // across)
    inches = width or max(6.4, 1.0 + size[0] * across)
    figure = new_picture(inches, 0.7 + size[1] * rows)
    figure.set_layout_engine("constrained")
    return [figure.add_subplot(rows, across, index + 1) for index in range(count)], figure


def finish_grid(figure: Figure, panels: list[Axes], columns: int, title: str, across: str) -> None:
    """The title of a grid of panels, one legend for all, and the label below the lowest panels."""
    columns = min(columns, len(panels))
    for panel in panels[-columns:]:
        label_across(panel, across)
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(
        handles, labels, loc="outside upper right" if columns > 1 else "outside lower center",
        ncols=len(labels), frameon=False, fontsize=theme.size(8.5), labelcolor=theme.ink(),
    )  # fmt: skip
    figure.suptitle(title, x=0.01, ha="left", size=theme.size(12), weight="bold", color=theme.ink())


def dress_axes(ax: Axes, title: str = "", units: str = "") -> None:
    """Title on the left, unit on the right, a quiet frame and grid."""
    ax.set_title(title, loc="left", size=theme.size(9.5), weight="bold", color=theme.ink())
    if units:
        ax.set_title(units, loc="right", size=theme.size(8), color=theme.quiet())
    ax.grid(color=theme.rule(), linewidth=0.6)
    ax.set_axisbelow(True)
    ax.spines[["top", "right"]].set_visible(False)
    ax.spines[["left", "bottom"]].set(linewidth=0.6, color=theme.quiet())
    ax.tick_params(
        which="both", labelsize=theme.size(8), color=theme.quiet(), labelcolor=theme.ink(),
        width=0.6, length=3,
    )  # fmt: skip


def label_across(ax: Axes, text: str) -> None:
    """Write below an axes what runs across it."""
    ax.set_xlabel(text, size=theme.size(8.5), color=theme.ink())
