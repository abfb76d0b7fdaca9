"""Tables of scores: kept as CSV, looked at on screen, and asked how long a forecast is useful."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from climlstm.errors import DataError
from climlstm.evaluation.evaluate import SCORE_COLUMNS, Evaluation
from climlstm.files import write_whole, writing

DEFINITIONS = {
    "rmse": "root of the mean squared error, the mean being over area and initialisations",
    "mae": "mean absolute error over area and initialisations",
    "bias": "mean of forecast minus truth over area and initialisations",
    "acc": "uncentred anomaly correlation over area, averaged over initialisations",
    "crps": "fair continuous ranked probability score, mean over area and initialisations",
    "spread": "root of the mean ensemble variance, times (M + 1) / M for M members",
    "spread_skill": "spread over the RMSE of the ensemble mean",
}
"""What the numbers are, to be said beside them; those of WeatherBench 2 where it has them."""

GROUP = ["variable", "level", "region", "model"]


def useful_lead(scores: pd.DataFrame, metric: str = "acc", threshold: float = 0.6) -> pd.DataFrame:
    """Lead time at which a score first falls below a threshold, by linear interpolation.

    For scores of which more is better: ACC above 0.6 is the usual bound of useful forecasts, a
    skill score above 0 (`rmse_skill_vs_climatology`) another. One row for each of variable, level,
    region and model: `useful_lead` (timedelta64; 0 where already the first lead time is below),
    and `ended`: False where the score stays above as far as the forecasts go.
    """
    chosen = scores[scores["metric"] == metric]
    if chosen.empty:
        raise DataError(
            f"The scores have no metric '{metric}'. They have: "
            f"{', '.join(sorted(scores['metric'].unique()))}."
        )
    rows = []
    for group, curve in chosen.groupby(GROUP, dropna=False, sort=False):
        curve = curve.sort_values("lead_time")
        lead, ended = _crossing(curve["lead_time"], curve["value"].to_numpy(), threshold)
        rows.append((*group, lead, ended))
    return pd.DataFrame(rows, columns=[*GROUP, "useful_lead", "ended"])


def _crossing(leads: pd.Series, values: np.ndarray, threshold: float) -> tuple[pd.Timedelta, bool]:
    below = np.flatnonzero(values < threshold)
    if below.size == 0:
        return leads.iloc[-1], False
    first = below[0]
    if first == 0:
        return pd.Timedelta(0), True
    before, after = values[first - 1], values[first]
    share = float((before - threshold) / (before - after))
    return leads.iloc[first - 1] + share * (leads.iloc[first] - leads.iloc[first - 1]), True


def score_table(
    scores: pd.DataFrame,
    metric: str,
    *,
    region: str = "global",
    leads: Sequence[pd.Timedelta] | None = None,
) -> tuple[list[str], list[list[str]]]:
    """Heading and rows of one metric for the screen: by variable and lead time, a column a model.

    What the metric is stands in `DEFINITIONS`.

    leads: those to show; None: each whole day, or all where there are none.
    A value stands with its confidence interval, as `0.83 [0.80, 0.86]`; '–' where there is none.
    """
    chosen = scores[(scores["metric"] == metric) & (scores["region"] == region)]
    models = list(chosen["model"].unique())
    if leads is None:
        days = chosen[chosen["lead_time"] % pd.Timedelta("1D") == pd.Timedelta(0)]
        chosen = chosen if days.empty else days
    else:
        chosen = chosen[chosen["lead_time"].isin(list(leads))]
    rows = []
    keys = ["variable", "level", "lead_time"]
    for (variable, level, lead), group in chosen.groupby(keys, dropna=False, sort=False):
        name = variable if pd.isna(level) else f"{variable}{level:g}"
        units = group["units"].iloc[0]
        name += "" if pd.isna(units) or units == "1" else f" ({units})"
        cells = group.drop_duplicates("model").set_index("model")
        rows.append([name, _hours(lead), *(_cell(cells, model) for model in models)])
    return ["variable", "lead", *models], rows


def _cell(cells: pd.DataFrame, model: str) -> str:
    if model not in cells.index:
        return "–"
    value, low, high = (float(cells.at[model, name]) for name in ("value", "ci_low", "ci_high"))
    interval = "" if np.isnan(low) else f" [{_number(low)}, {_number(high)}]"
    return _number(value) + interval


def _number(value: float) -> str:
    """Three digits, and never a power of ten."""
    return f"{value:.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def _hours(lead: pd.Timedelta) -> str:
    """'6h'; nothing for a score of whole forecasts, which has no lead time."""
    return "" if pd.isna(lead) else f"{lead / pd.Timedelta('1h'):g}h"


def write_scores(evaluation: Evaluation, directory: str | Path) -> list[Path]:
    """Write `scores.csv`, and for each evaluator with a table of its own that and its cases.

    Evaluators that have further files, such as tracks, write these beside them.

    Lead times are written as '6h', which `pd.to_timedelta` reads. Each file appears whole or not
    at all. Returns the paths. Raises DataError where the folder cannot be written.
    """
    tables = {"scores": evaluation.scores} if len(evaluation.scores) else {}
    for name, table in evaluation.tables.items():
        tables |= {name: table, f"{name}_cases": evaluation.cases[name]}
    folder = Path(directory)
    paths = [folder / f"{name}.csv" for name in tables]
    with writing(folder / "scores.csv"):
        folder.mkdir(parents=True, exist_ok=True)
        for path, table in zip(paths, tables.values(), strict=True):
            _write_csv(table, path)
        for write in evaluation.writers.values():
            paths += write(folder)
    return paths


def read_scores(path: str | Path) -> pd.DataFrame:
    """The score table of a `scores.csv`, or of the folder that holds one."""
    path = Path(path)
    path = path / "scores.csv" if path.is_dir() else path
    try:
        scores = pd.read_csv(path, dtype={"level": "Float64", "n": "Int64"})
    except FileNotFoundError:
        raise DataError(f"There are no scores at '{path}'. Make them with 'evaluate'.") from None
    except (OSError, ValueError) as error:
        raise DataError(f"The scores '{path}' cannot be read: {error}.") from error
    missing = [name for name in SCORE_COLUMNS if name not in scores]
    if missing:
        raise DataError(f"'{path}' is no table of scores: it has no column {', '.join(missing)}.")
    return scores.assign(lead_time=pd.to_timedelta(scores["lead_time"]))[SCORE_COLUMNS]


def _write_csv(table: pd.DataFrame, path: Path) -> None:
    durations = {name: table[name].map(_hours) for name in table if table[name].dtype.kind == "m"}
    with write_whole(path, durable=True) as written:
        table.assign(**durations).to_csv(written, index=False)
