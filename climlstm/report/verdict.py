"""The head of a report, a sentence and a few numbers; and the cases that it shows."""

from dataclasses import dataclass
from typing import Any

import pandas as pd
import xarray as xr

from climlstm.calendars import day_text
from climlstm.config import Config
from climlstm.evaluation.evaluate import Evaluation
from climlstm.evaluation.tables import useful_lead
from climlstm.html import Markup, badge, text
from climlstm.report import page
from climlstm.steps import lead_numbers

FAVOURITES = ("msl", "z500", "t2m", "t850")
"""Variables that people look at first."""

USEFUL_ACC = 0.6
"""Anomaly correlation above which a forecast is held useful (Hollingsworth et al. 1980)."""


@dataclass(frozen=True)
class Chosen:
    """A forecast that the report shows, and why this one."""

    variable: str
    init_time: Any
    lead_time: Any
    why: str


def favourites(names: Any) -> list[str]:
    """Channels in the order in which people look at them."""
    known = [str(name) for name in names]
    return [n for n in FAVOURITES if n in known] + [n for n in known if n not in FAVOURITES]


def best_known(
    evaluation: Evaluation, forecasts: xr.Dataset, model: str
) -> tuple[Chosen, Chosen | None]:
    """The median and the worst forecast of the best known variable at two days, or months.

    By the error that the evaluator `rmse` found; without it, the one in the middle of the period.
    """
    variable = favourites(forecasts.data_vars)[0]
    leads = forecasts["lead_time"].values
    within = leads[lead_numbers(leads)[0] <= 2]
    lead = within[-1] if within.size else leads[0]
    inits = forecasts["init_time"].values
    cases = evaluation.cases.get("rmse")
    if cases is None or "mse" not in cases:
        middle = inits[inits.size // 2]
        return Chosen(variable, middle, lead, "in the middle of the period"), None
    cases = cases[(cases["model"] == model) & (cases["variable"] == variable)]
    cases = cases[cases["lead_time"] == lead]
    cases = cases[cases["region"] == cases["region"].iloc[0]].sort_values("mse")
    ordered = cases["init_time"].to_numpy()
    typical = Chosen(
        variable, ordered[ordered.size // 2], lead, "the median case: half are better, half worse"
    )
    return typical, Chosen(variable, ordered[-1], lead, f"the worst of {ordered.size}")


def headline(
    evaluation: Evaluation,
    forecasts: xr.Dataset,
    config: Config,
    provenance: dict[str, Any],
    model: str,
) -> str:
    """The first screen of the page."""
    inits = forecasts["init_time"].values
    span = f"{day_text(inits[0])} to {day_text(inits[-1])}"
    longest = forecasts["lead_time"].values[-1]
    passed = provenance.get("audit", {}).get("passed")
    seen = "audit passed" if passed else "no audit" if passed is None else "audit failed"
    numbers = [
        (f"{inits.size}", f"forecasts from {span}, up to {_days(longest)} ahead"),
        *_skill(evaluation, model),
    ]
    return (
        f'<p class="over">climlstm report</p><h1>{text(config.name)}</h1>'
        f"<p>{text(_sentence(evaluation, config, model))} "
        f"{badge(seen, 'passed' if passed else 'failed')}</p>"
        f"{page.cards(numbers)}"
    )


def _sentence(evaluation: Evaluation, config: Config, model: str) -> Markup | str:
    number = len(config.data.predicted)
    beside = [name for name in dict.fromkeys(evaluation.scores["model"]) if name != model]
    return (
        f"Forecasts of {number} variable{'s' if number > 1 else ''} by {model}, scored on times "
        f"that it was neither trained nor validated on, beside {' and '.join(beside) or 'none'}."
    )


def _skill(evaluation: Evaluation, model: str) -> list[tuple[str, str]]:
    """Leads up to which all variables are surely better than each baseline, and than an ACC of 0.6.

    Counted to the end of the last lead time at which the whole interval of 95 % is on the good
    side: a skill of 0.004 [-0.016, 0.029] is none.
    """
    scores = evaluation.scores
    sure = scores.assign(value=scores["ci_low"].fillna(scores["value"]))
    found = []
    for metric, threshold, what in (
        ("rmse_skill_vs_persistence", 0.0, "RMSE below persistence"),
        ("rmse_skill_vs_climatology", 0.0, "RMSE below climatology"),
        ("rmse_skill_vs_damped", 0.0, "RMSE below damped persistence"),
        ("rmse_skill_vs_linear", 0.0, "RMSE below the linear inverse model"),
        ("acc", USEFUL_ACC, f"anomaly correlation above {USEFUL_ACC}"),
    ):
        if not (scores["metric"] == metric).any():
            continue
        leads = useful_lead(sure, metric, threshold)
        leads = leads[leads["model"] == model]
        found.append(_first_to_lose(leads[leads["region"] == leads["region"].iloc[0]], what))
    return found


def _first_to_lose(leads: pd.DataFrame, what: str) -> tuple[str, str]:
    """'3.2 days', and until what happens to which variable first."""
    leads = leads.assign(number=lead_numbers(leads["useful_lead"])[0])
    first, unit = leads.sort_values("number").iloc[0], lead_numbers(leads["useful_lead"])[1]
    if not leads["ended"].any():
        return f"> {first['number']:.3g} {unit}", f"{what} in all variables, with 95 % confidence"
    level = "" if pd.isna(first["level"]) else f"{first['level']:g}"
    name = f"{first['variable']}{level}"
    if first["number"] == 0:
        return f"0 {unit}", f"{what}: not with 95 % confidence in {name}, from the first lead on"
    said = f"{what} with 95 % confidence, until {name} is the first to lose it"
    return f"{first['number']:.1f} {unit}", said


def _days(lead: Any) -> str:
    numbers, unit = lead_numbers([lead])
    return f"{numbers[0]:g} {unit.removesuffix('s') if numbers[0] == 1 else unit}"
