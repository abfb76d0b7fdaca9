"""Whether what is scored was seen before: rules about periods, and which times went into what.

Nothing is taken on trust: windows never cross a period's edge by construction (plan.py), and run
files refuse periods that overlap (config/), but checkpoints and forecasts may come from
elsewhere. So every rule looks at the times that it is given, and only at those.
"""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pydantic import TypeAdapter, ValidationError

from climlstm.audit.findings import Finding
from climlstm.calendars import Times, within
from climlstm.config import DataConfig, Moment, period_bounds
from climlstm.data.cube.forcing import CHANNELS, forcing_fields
from climlstm.data.statistics.statistics import Period
from climlstm.errors import DataError
from climlstm.steps import Leads, valid_times

FURTHER = "train of source "
"""Begins the name of what was seen of a further source, before its number."""

Fields = Callable[[Sequence[str], Times, NDArray, NDArray], NDArray]
"""A function like `forcing_fields`."""


def check_periods(periods: Mapping[str, Period]) -> Iterator[Finding]:
    """Periods that share a moment: validation = test is the commonest of all mistakes."""
    for (name, first), (other, second) in combinations(periods.items(), 2):
        start, stop = max(first[0], second[0]), min(first[1], second[1])
        if start <= stop:
            yield Finding(
                "periods-overlap",
                "error",
                f"The periods '{name}' and '{other}' share data, so scores are too good",
                f"data.periods.{name} and data.periods.{other}",
                f"{start} to {stop} is in both",
                f"End the earlier of them before {start}.",
            )


def check_windows(used: Mapping[str, Times], periods: Mapping[str, Period]) -> Iterator[Finding]:
    """Windows that reach out of their period, into another one or between two.

    used: for each period the times of all steps of its windows, history and target.
    """
    for name, times in used.items():
        outside = times[~within(times, periods[name])]
        if outside.size == 0:
            continue
        reached = [other for other in periods if within(outside, periods[other]).any()]
        into = f"into '{reached[0]}'" if reached else "out of it"
        yield Finding(
            "windows-cross-periods",
            "error",
            f"Windows of the period '{name}' reach {into}",
            f"windows of '{name}'",
            f"{outside.size} steps outside, the first at {_moment(outside.min())}",
            "Cut windows within a period, so that neither history nor target leaves it.",
        )


def check_fits(fits: Mapping[str, Period], train: Period) -> Iterator[Finding]:
    """Statistics, climatology, masks or anything else fitted to more than the training period.

    fits: what was fitted, and the first and last moment that went into it.
    """
    for name, (start, stop) in fits.items():
        if start < train[0] or stop > train[1]:
            yield Finding(
                "fitted-outside-training",
                "error",
                f"The {name} were taken from more than the training period, "
                "so they know what is to be forecast",
                name,
                f"{start} to {stop}, training {train[0]} to {train[1]}",
                "Compute them anew from the training period alone.",
            )


def check_choice(chosen: Period, periods: Mapping[str, Period]) -> Iterator[Finding]:
    """A checkpoint chosen by its loss on anything but the validation period.

    chosen: first and last time of the windows whose loss decided.
    """
    start, stop = periods["valid"]
    if chosen[0] < start or chosen[1] > stop:
        reached = [n for n in periods if chosen[0] <= periods[n][1] and chosen[1] >= periods[n][0]]
        yield Finding(
            "checkpoint-choice",
            "error",
            "The checkpoint was chosen by its loss outside the validation period",
            ", ".join(f"data.periods.{name}" for name in reached) or "no period of the run",
            f"{chosen[0]} to {chosen[1]}, validation {start} to {stop}",
            "Choose the checkpoint by its loss on the validation period, and train anew.",
        )


def check_forcings(
    names: Sequence[str],
    times: Times,
    latitude: NDArray,
    longitude: NDArray,
    *,
    observed: Collection[str] = (),
    fields: Fields = forcing_fields,
) -> Iterator[Finding]:
    """Forcings that read the future: what is observed, or what changes when later times are known.

    times: some of the cube, increasing. observed: channels of the cube.
    fields: makes the forcings, each from its time and place alone.
    """
    for name in [n for n in names if n not in CHANNELS or n in observed]:
        yield Finding(
            "forcing-reads-future",
            "error",
            f"'{name}' is no function of time and place, so as a forcing it shows the network "
            "the weather that it is to forecast",
            f"data.forcing: {name}",
            "observed" if name in observed else "unknown",
            f"Move it to data.state, or use one of {', '.join(CHANNELS)}.",
        )
    known = [name for name in names if name in CHANNELS]
    if not known or times.size < 2:
        return
    alone = np.concatenate([fields(known, times[i : i + 1], latitude, longitude) for i in range(2)])
    together = fields(known, times, latitude, longitude)[:2]
    if not np.array_equal(alone, together):
        yield Finding(
            "forcing-reads-future",
            "error",
            "Forcings differ when later times are known",
            f"data.forcing: {', '.join(known)}",
            f"by up to {np.abs(alone - together).max():.3g} at {_moment(times[0])}",
            "Compute each forcing from its own time and place alone.",
        )


def check_further(
    data: DataConfig, periods: Mapping[str, Period], *, free: bool
) -> Iterator[Finding]:
    """A further source whose training period reaches into what the run is validated or tested on.

    data: of the further source. periods: of the run. free: whether its weather is its own.
    """
    first, last = data.periods.bounds("train")
    for name in () if free else ("valid", "test"):
        start, stop = periods[name]
        if first <= stop and last >= start:
            yield Finding(
                "further-source-has-seen",
                "error",
                f"Training on '{data.source}' reaches into the period '{name}', whose weather it "
                "shows as well, so scores are too good",
                f"data.also, source '{data.source}'",
                f"{max(first, start)} to {min(last, stop)} is in both",
                "Give it a period 'train' outside; or, if it is a climate model that runs freely, "
                "declare 'free_running: true' in the catalog.",
            )


def check_scoring(
    provenance: Mapping[str, Any],
    init_times: Times,
    lead_times: Leads,
    *,
    climatology: Period | None = None,
) -> list[Finding]:
    """Times that the forecaster has seen before and that make scores of its forecast worthless.

    provenance: what the forecast store says (`climlstm_provenance`), whoever wrote it. Which data
    it is scored against makes no difference: another analysis of a day shows the same weather.
    climatology: the moments that the reference climatology was taken from.
    Raises DataError where the provenance names no periods.
    """
    for run in list(provenance.get("runs", {}).values())[1:]:  # the first is this one
        others = check_scoring(run, init_times, lead_times, climatology=climatology)
        if any(finding.severity == "error" for finding in others):
            return others
    periods = periods_of(provenance)
    seen = {name: _period(span) for name, span in provenance.get("seen", {}).items()}
    findings = list(check_periods(periods))
    findings += check_fits(
        {name: span for name, span in seen.items() if name in ("statistics", "climatology")},
        periods["train"],
    )
    if "valid" in seen:
        findings += check_choice(seen["valid"], periods)
    scored = np.unique(valid_times(init_times, lead_times).ravel())
    named = {name: [periods[name]] for name in ("train", "valid")}
    named |= {name: [] for name in seen if name.startswith(FURTHER)}
    for name, spans in named.items():
        deed = "validated" if name == "valid" else "trained"
        spans = [*spans, *([seen[name]] if name in seen else [])]
        findings += _seen_before(
            scored, spans, f"their forecaster was {deed} on", f"period '{name}' of the checkpoint"
        )
    for ancestor, spans in spans_of_ancestors(provenance.get("lineage", [])):
        findings += _seen_before(
            scored, spans, f"{ancestor}, from which their forecaster started, has seen", ancestor
        )
    if climatology is not None and within(scored, climatology).any():
        findings.append(
            Finding(
                "climatology-of-scored-times",
                "error",
                "The climatology that scores compare with was taken from the scored times",
                "climatology",
                f"{climatology[0]} to {climatology[1]}",
                "Take it from the training period.",
            )
        )
    return findings


def check_lineage(
    lineage: Sequence[Mapping[str, Any]], periods: Mapping[str, Period]
) -> Iterator[Finding]:
    """Validation and test periods that a forecaster, from which a run starts, has seen before.

    lineage: of the run's provenance.
    """
    for ancestor, spans in spans_of_ancestors(lineage):
        for name in ("valid", "test"):
            first, last = periods[name]
            if any(start <= last and stop >= first for start, stop in spans):
                yield Finding(
                    "ancestor-has-seen",
                    "warning",
                    f"The period '{name}' was trained or validated on by {ancestor}, from which "
                    "this run starts, so scores there are too good",
                    f"data.periods.{name}",
                    f"seen {min(s for s, _ in spans)} to {max(s for _, s in spans)}",
                    "Choose a period outside, or another checkpoint to start from.",
                )


def spans_of_ancestors(
    lineage: Sequence[Mapping[str, Any]],
) -> Iterator[tuple[str, list[Period]]]:
    """Yield name, and periods of training and validation, for each forecaster of a lineage; those
    of models that run freely are no weather of the world.

    Raises DataError where a lineage does not say so.
    """
    for ancestor in lineage:
        name = f"'{ancestor.get('run')}' ({str(ancestor.get('digest'))[:12]})"
        try:
            seen, data = ancestor["seen"], ancestor["data"]
            named = [] if data.get("free_running") else [data["periods"], seen]
            spans = [_period(which[key]) for which in named for key in ("train", "valid")]
            spans += [_period(seen[key]) for key in seen if key.startswith(FURTHER)]
        except (KeyError, TypeError, ValidationError) as error:
            raise DataError(
                f"The lineage does not say what {name} has seen ({error!r}), so nobody can tell "
                "what scores are worth. Train again from a checkpoint of this climlstm."
            ) from error
        if spans:
            yield name, spans


def _seen_before(scored: Times, spans: Sequence[Period], who: str, where: str) -> Iterator[Finding]:
    known = scored[np.logical_or.reduce([within(scored, span) for span in spans])]
    if known.size:
        yield Finding(
            "scored-on-seen",
            "error",
            f"The forecasts are scored on times that {who}",
            where,
            f"{known.size} of {scored.size} valid times, {_moment(known.min())} to "
            f"{_moment(known.max())}",
            f"Forecast from {max(span[1] for span in spans)} on, or before "
            f"{min(span[0] for span in spans)}.",
        )


def periods_of(provenance: Mapping[str, Any]) -> dict[str, Period]:
    """Periods of the run that a checkpoint or forecast came from, even if they overlap.

    Raises DataError where it does not name all three.
    """
    try:
        named = provenance["config"]["data"]["periods"]
        return {name: _period(named[name]) for name in ("train", "valid", "test")}
    except (KeyError, TypeError, ValidationError) as error:
        raise DataError(
            f"The provenance names no periods for training, validation and test ({error!r}), so "
            "nobody can tell what the forecaster has seen. Forecast again from its checkpoint."
        ) from error


def _period(span: Any) -> Period:
    return period_bounds(*TypeAdapter(tuple[Moment, Moment]).validate_python(span))


def _moment(time: Any) -> str:
    return str(pd.Timestamp(time)) if isinstance(time, np.datetime64) else str(time)
