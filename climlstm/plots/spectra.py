"""Power spectra: how much of the truth's variance a forecast has left, scale by scale."""

from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullFormatter

from climlstm.plots import theme
from climlstm.plots.graphs import dress_axes, label_across, require_columns, require_value
from climlstm.plots.sheet import new_picture
from climlstm.plots.styles import lead_label, look_of_channel

COLUMNS = ("variable", "lead_time", "wavelength_km", "power", "true_power", "units")

_LEAD_COLOURS = ("#4fb3d1", "#0b62a4", "#7a4fa3", "#d1495b", "#e09f1f", "#2a9d6f")

_FAINTEST = 1e-6
"""Share of the greatest power below which nothing is shown."""

_MARKS_KM = (100, 200, 500, 1000, 2000, 5000, 10000, 20000, 40000)


def plot_spectra(
    spectra: pd.DataFrame,
    variable: str,
    *,
    model: str | None = None,
    width: float = 4.6,
    ax: Axes | None = None,
) -> Figure | Axes:
    """Power by wavelength of the forecast, a line for each lead time, and of the truth.

    Below it, their ratio: 1 where the forecast has as much variance as the truth, less where it is
    too smooth. Where `ax` is given, the power alone.

    spectra: the table of the evaluator `power_spectrum`.
    model: which of the models in it; the first one, if not given.
    Raises DataError for what is not in the table.
    """
    chosen = _select(spectra, variable, model)
    look = look_of_channel(variable, str(chosen["units"].iloc[0]))
    scale = look.conversion.scale**2
    if ax is None:
        figure = new_picture(width, 0.85 * width)
        figure.set_layout_engine("constrained")
        upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1.2))
    else:
        figure, upper, lower = None, ax, None
    truth = chosen.groupby("wavelength_km")["true_power"].mean()
    upper.loglog(
        truth.index, truth * scale, color=theme.ink(), linewidth=1.6, label="truth", zorder=4
    )
    leads = sorted(chosen["lead_time"].unique())
    for index, lead in enumerate(leads):
        rows = chosen[chosen["lead_time"] == lead].sort_values("wavelength_km")
        line: dict[str, Any] = {
            "color": _LEAD_COLOURS[index % len(_LEAD_COLOURS)], "linewidth": 1.4,
        }  # fmt: skip
        label = lead_label(lead)
        upper.loglog(rows["wavelength_km"], rows["power"] * scale, label=label, **line)
        if lower is not None:
            lower.semilogx(rows["wavelength_km"], rows["power"] / rows["true_power"], **line)
    _dress(upper, look.label, _squared(look.units))
    strongest = float(truth.max() * scale)
    upper.set_ylim(bottom=max(upper.get_ylim()[0], strongest * _FAINTEST))
    upper.set_ylabel("power", size=theme.size(7.5), color=theme.quiet())
    upper.legend(frameon=False, fontsize=theme.size(8), labelcolor=theme.ink(), loc="lower left")
    if lower is not None:
        _dress(lower, "", "")
        lower.axhline(1.0, color=theme.quiet(), linewidth=0.6, zorder=1)
        lower.set_ylim(0, max(1.3, min(2.0, lower.get_ylim()[1])))
        lower.set_ylabel("share of truth", size=theme.size(7.5), color=theme.quiet())
    label_across(upper if lower is None else lower, "wavelength (km)")
    return figure if figure is not None else upper


def _select(spectra: pd.DataFrame, variable: str, model: str | None) -> pd.DataFrame:
    hint = " The evaluator 'power_spectrum' makes one."
    require_columns(spectra, COLUMNS, "spectra", hint)
    require_value(spectra["variable"], variable, "spectra of the variable")
    if model is not None:
        require_value(spectra.get("model", pd.Series()), model, "spectra of the model")
    chosen = spectra[spectra["variable"] == variable]
    if "model" in chosen:
        chosen = chosen[chosen["model"] == (model or chosen["model"].iloc[0])]
    return chosen


def _dress(ax: Axes, title: str, units: str) -> None:
    dress_axes(ax, title, units)
    low, high = ax.dataLim.x0, ax.dataLim.x1
    ax.set_xlim(high * 1.05, low / 1.05)
    ax.set_xticks([mark for mark in _MARKS_KM if low <= mark <= high])
    ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    ax.xaxis.set_minor_formatter(NullFormatter())


def _squared(units: str) -> str:
    """'hPa²', '(m s⁻¹)²', or nothing for a number."""
    if not units:
        return ""
    return f"({units})²" if any(sign in units for sign in " ⁻") else f"{units}²"
