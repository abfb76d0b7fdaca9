"""Results of an evaluation: the table of scores and others, kept as CSV and looked at on screen."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from climlstm import html
from climlstm.advice import command
from climlstm.errors import DataError
from climlstm.files import write_whole, writing
from climlstm.plugins.channels import installed_channel
from climlstm.steps import is_round_lead, lead_text

SCORE_COLUMNS = [
    *("variable", "level", "lead_time", "region", "metric", "model"),
    *("value", "ci_low", "ci_high", "n", "units"),
]

DEFINITIONS = {
    "rmse": "root of the mean squared error, the mean being over area and initialisations",
    "mae": "mean absolute error over area and initialisations",
    "bias": "mean of forecast minus truth over area and initialisations",
    "acc": "uncentred anomaly correlation over area, averaged over initialisations",
    "crps": "fair continuous ranked probability score, mean over area and initialisations",
    "spread": "root of the mean ensemble variance, times (M + 1) / M for M members",
    "spread_skill": "spread over the RMSE of the ensemble mean",
}
"""Definitions of metrics, to be shown beside the numbers; WeatherBench 2's where it has them."""

GROUP = ["variable", "level", "region", "model"]

Write = Callable[[Path], list[Path]]
"""Writes files of its own into a folder, and returns their paths."""

Draw = Callable[[], dict[str, Any]]
"""Draws figures of matplotlib, by title."""


@dataclass(frozen=True)
class Evaluation:
    """Scores over all initialisations, and the tables of each one."""

    scores: pd.DataFrame
    """Scores of all evaluators that give some, in `SCORE_COLUMNS`; lead_time is a timedelta64, or a
    number of months."""
    tables: dict[str, pd.DataFrame]
    """Summaries of the other evaluators, by their names: columns of their own, and `model`."""
    cases: dict[str, pd.DataFrame]
    """Tables of single initialisations, by evaluator, with columns `model` and `init_time`."""
    writers: dict[str, Write] = field(default_factory=dict)
    """Further files, such as tracks, by the evaluators that have them."""
    figures: dict[str, Draw] = field(default_factory=dict)
    """Figures of their own, by the evaluators that have them; drawn when called."""

    def _repr_html_(self) -> str:
        """The scores of whole days, metric by metric and region by region, for notebooks."""
        pairs = self.scores[["metric", "region"]].drop_duplicates()
        tables: list[str] = []
        for metric, region in pairs.itertuples(index=False):
            heading, rows = score_table(self.scores, metric, region=region)
            drawn = html.table(heading, rows, numbers_from=1)
            tables.append(html.details(f"{metric}, {region}", drawn, opened=not tables))
        others = [f"{name}: {len(table)} rows in .tables" for name, table in self.tables.items()]
        return html.fragment(*tables, *map(html.quiet, others))


def join_scores(parts: Sequence[pd.DataFrame], units: Mapping[str, str]) -> pd.DataFrame:
    """One table in `SCORE_COLUMNS`; columns that an evaluator does not know are filled in.

    units: those of the channels.
    """
    if not parts:
        return pd.DataFrame(columns=SCORE_COLUMNS)
    whole = pd.concat([part.astype({"variable": str}) for part in parts], ignore_index=True)
    whole = whole.reindex(columns=SCORE_COLUMNS)
    whole["region"] = whole["region"].astype(object).fillna("global").astype(str)
    whole["units"] = whole["units"].astype(object).fillna(whole["variable"].map(units))
    channels = {name: installed_channel(name) for name in whole["variable"].unique()}
    levels = whole["variable"].map({name: found.level for name, found in channels.items()})
    whole["level"] = whole["level"].astype("Float64").fillna(levels)
    whole["variable"] = whole["variable"].map({n: c.variable.name for n, c in channels.items()})
    numbers = dict.fromkeys(("value", "ci_low", "ci_high"), "float64")  # empty parts have none
    return whole.astype({"level": "Float64", "n": "Int64", **numbers})


def infinite_scores(scores: pd.DataFrame) -> str:
    """How many scores are infinite, and the first of each model; nothing where none is."""
    rows = scores[np.isinf(scores["value"].astype("float64"))]  # an empty table has objects
    firsts = [
        f"{row.metric} of '{row.variable}{'' if pd.isna(row.level) else f'{row.level:g}'}' at "
        f"{_lead(row.lead_time) or 'all leads'}, {row.region}, of {row.model}"
        for row in rows.drop_duplicates("model").itertuples()
    ]
    return f"{len(rows)} scores are infinite, the first: {'; '.join(firsts)}" if firsts else ""


def useful_lead(scores: pd.DataFrame, metric: str = "acc", threshold: float = 0.6) -> pd.DataFrame:
    """Lead time at which a score first falls below a threshold, by linear interpolation.

    For scores of which more is better: ACC above 0.6 is the usual bound of useful forecasts, a
    skill score above 0 (`rmse_skill_vs_climatology`) another. One row for each of variable, level,
    region and model: `useful_lead` (timedelta64, or months; 0 where already the first lead time is
    below), and `ended`: False where the score stays above as far as the forecasts go.
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


def _crossing(leads: pd.Series, values: np.ndarray, threshold: float) -> tuple[Any, bool]:
    below = np.flatnonzero(values < threshold)
    if below.size == 0:
        return leads.iloc[-1], False
    first = below[0]
    if first == 0:
        return leads.iloc[0] * 0, True
    before, after = values[first - 1], values[first]
    share = float((before - threshold) / (before - after))
    return leads.iloc[first - 1] + share * (leads.iloc[first] - leads.iloc[first - 1]), True


def score_table(
    scores: pd.DataFrame,
    metric: str,
    *,
    region: str = "global",
    leads: Sequence[Any] | None = None,
) -> tuple[list[str], list[list[str]]]:
    """Heading and rows of one metric for the screen: by variable and lead time, a column a model.

    What the metric is stands in `DEFINITIONS`.

    leads: those to show; None: each whole day, or all where there are none.
    A value stands with its confidence interval, as `0.83 [0.80, 0.86]`; '–' where there is none.
    """
    chosen = scores[(scores["metric"] == metric) & (scores["region"] == region)]
    models = list(chosen["model"].unique())
    if leads is None:
        days = chosen[is_round_lead(chosen["lead_time"])]
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
        rows.append([name, _lead(lead), *(_cell(cells, model) for model in models)])
    return ["variable", "lead", *models], rows


def _cell(cells: pd.DataFrame, model: str) -> str:
    if model not in cells.index:
        return "–"
    value, low, high = (float(cells.at[model, name]) for name in ("value", "ci_low", "ci_high"))
    interval = "" if np.isnan(low) else f" [{_number(low)}, {_number(high)}]"
    return _number(value) + interval


def _number(value: float) -> str:
    """Three digits, and powers of ten only where a value is out of all bounds."""
    return f"{value:.0f}" if 1000 <= abs(value) < 1e8 else f"{value:.3g}"


def _lead(lead: Any) -> str:
    """'6h', '3 months'; nothing for a score of whole forecasts, which has no lead time."""
    return lead_text(lead).replace(" h", "h")


def write_scores(evaluation: Evaluation, directory: str | Path) -> list[Path]:
    """Write `scores.csv` and `scores.nc`; of each evaluator with a table of its own that, and its
    cases.

    Evaluators that have further files, such as tracks, write these beside them.

    Lead times are written as '6h', which `pd.to_timedelta` reads, or '3 months'. Each file appears
    whole or not at all. Returns the paths. Raises DataError where the folder cannot be written.
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
        if len(evaluation.scores):
            paths.append(folder / "scores.nc")
            with write_whole(paths[-1]) as written:
                score_dataset(evaluation.scores).to_netcdf(written, engine="netcdf4")
        for write in evaluation.writers.values():
            paths += write(folder)
    return paths


def score_dataset(scores: pd.DataFrame) -> xr.Dataset:
    """The table of scores as an array: `value`, `ci_low`, `ci_high` and `n` by metric, model,
    region, channel and lead time; NaN where the table has no row.

    lead_time: timedelta64, or the number of months.
    """
    level = scores["level"].map(lambda value: "" if pd.isna(value) else f"{value:g}")
    table = scores.assign(channel=scores["variable"].astype(str) + level)
    keys = ["metric", "model", "region", "channel", "lead_time"]
    table = table.dropna(subset=["lead_time"]).drop_duplicates(keys).set_index(keys)
    found = table[["value", "ci_low", "ci_high", "n"]].astype("float64").to_xarray()
    if found["lead_time"].dtype.kind in "iuf":
        found["lead_time"].attrs["units"] = "months"
    definitions = {m: DEFINITIONS[m] for m in found["metric"].values if m in DEFINITIONS}
    return found.assign_attrs(definitions, Conventions="CF-1.11")


def read_scores(path: str | Path) -> pd.DataFrame:
    """The score table of a `scores.csv`, or of the folder that holds one."""
    path = Path(path)
    folder = path.parent if path.suffix == ".csv" and not path.is_dir() else path
    path = path if path.is_file() else folder / "scores.csv"
    try:
        scores = pd.read_csv(path, dtype={"level": "Float64", "n": "Int64"})
    except FileNotFoundError:
        raise DataError(
            f"There are no scores at '{path}'. Make them with: "
            f"{command('climlstm', 'evaluate', 'STORE', '--out', folder)}"
        ) from None
    except (OSError, ValueError) as error:
        raise DataError(f"The scores '{path}' cannot be read: {error}.") from error
    missing = [name for name in SCORE_COLUMNS if name not in scores]
    if missing:
        raise DataError(f"'{path}' is no table of scores: it has no column {', '.join(missing)}.")
    months = scores["lead_time"].astype(str).str.extract(r"^(\d+) months?$")[0]
    counted = pd.to_numeric(months) if months.notna().any() else None
    leads = pd.to_timedelta(scores["lead_time"]) if counted is None else counted
    return scores.assign(lead_time=leads)[SCORE_COLUMNS]


def _write_csv(table: pd.DataFrame, path: Path) -> None:
    timed = [name for name in table if name == "lead_time" or table[name].dtype.kind == "m"]
    durations = {name: table[name].map(_lead) for name in timed}
    with write_whole(path, durable=True) as written:
        table.assign(**durations).to_csv(written, index=False)
