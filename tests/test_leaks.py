"""Leaks: periods that overlap, and data fitted to what is to be forecast."""

import numpy as np
import pandas as pd
import pytest

from climlstm.audit import audit as audits
from climlstm.audit import leaks
from climlstm.data.cube.cube import plan_cube
from climlstm.data.cube.forcing import forcing_fields
from climlstm.data.statistics.climatology import climatology, period_of
from climlstm.data.statistics.compute import compute_statistics
from climlstm.data.windows.starts import plan_windows
from climlstm.errors import DataError
from climlstm.steps import Step
from tests.small_audits import PERIODS, STEP, make_config, make_source, rules, spans


@pytest.mark.parametrize(
    ("valid", "test", "expected"),
    [
        (("2001-03-11", "2001-04-05"), ("2001-03-11", "2001-04-05"), {"periods-overlap"}),
        (("2001-02-01", "2001-03-01"), ("2001-03-11", "2001-04-05"), {"periods-overlap"}),
        (("2001-02-16", "2001-03-10"), ("2001-03-10", "2001-04-05"), {"periods-overlap"}),
        (("2001-02-16", "2001-03-10"), ("2001-03-11", "2001-04-05"), set()),
    ],
    ids=["validation = test", "validation within training", "one moment shared", "clean"],
)
def test_periods_that_overlap(valid, test, expected):
    assert rules(leaks.check_periods(spans(valid=valid, test=test))) == expected


def test_windows_that_reach_into_another_period():
    times = make_source()["time"].values
    bounds = spans()
    clean = plan_windows(times, period=bounds["train"], history=2, horizon=2, step=Step.parse("6h"))
    by_first_step = np.flatnonzero(times <= bounds["train"][1].to_datetime64())
    cut = {
        name: times[np.unique((starts[:, None] + np.arange(4)).ravel())]
        for name, starts in (("clean", clean), ("leaky", by_first_step))
    }
    assert rules(leaks.check_windows({"train": cut["clean"]}, bounds)) == set()
    [finding] = leaks.check_windows({"train": cut["leaky"]}, bounds)
    assert finding.rule == "windows-cross-periods"
    assert "into 'valid'" in finding.what
    assert "3 steps outside, the first at 2001-02-16 00:00:00" in finding.value


def test_validation_windows_whose_history_was_trained_on():
    times = make_source()["time"].values
    bounds = spans()
    first = int(np.flatnonzero(times == np.datetime64("2001-02-16T00"))[0])
    assert rules(leaks.check_windows({"valid": times[first : first + 9]}, bounds)) == set()
    [finding] = leaks.check_windows({"valid": times[first - 1 : first + 9]}, bounds)
    assert "into 'train'" in finding.what


def task_findings(*, statistics=None, reference=None, train=None, valid=None):
    """`check_task` for a clean task, or with a part of it fitted to other periods."""
    config = make_config()
    cube = plan_cube(make_source(), config.data).cube
    bounds = config.data.periods.spans
    times = cube["time"].values
    places = {
        name: plan_windows(times, period=period, history=2, horizon=2, step=Step.parse("6h"))
        for name, period in (
            ("train", train or bounds["train"]),
            ("valid", valid or spans()["valid"]),
        )
    }
    return audits.check_task(
        config,
        times,
        statistics=compute_statistics(
            cube, channels=config.data.state, train=statistics or bounds["train"]
        ),
        climatology=period_of(
            climatology(cube, reference or bounds["train"], channels=config.data.state)
        ),
        **places,
    )


ALL = (pd.Timestamp("2001-01-01"), pd.Timestamp("2001-04-05T18"))


def test_a_clean_task_has_no_findings():
    assert task_findings() == []


def test_statistics_and_masks_over_all_years():
    findings = task_findings(statistics=ALL)
    assert rules(findings) == {"fitted-outside-training"}
    assert {f.where for f in findings} == {"statistics", "masks of missing cells"}


def test_climatology_over_the_test_period():
    [finding] = task_findings(reference=spans()["test"])
    assert finding.rule == "fitted-outside-training"
    assert finding.where == "climatology"
    assert "2001-03-11" in finding.value


def test_training_windows_from_the_validation_period():
    assert "windows-cross-periods" in rules(task_findings(train=ALL))


@pytest.mark.parametrize("period", ["test", "train"])
def test_a_checkpoint_chosen_by_another_period(period):
    findings = task_findings(valid=spans()[period])
    assert "checkpoint-choice" in rules(findings)
    [choice] = [f for f in findings if f.rule == "checkpoint-choice"]
    assert choice.where == f"data.periods.{period}"


def provenance(**replaced):
    periods = PERIODS | {k: v for k, v in replaced.items() if k in PERIODS}
    seen = {
        "train": ["2001-01-01", "2001-02-15"],
        "valid": ["2001-02-16", "2001-03-10"],
        "statistics": ["2001-01-01", "2001-02-15"],
        "climatology": ["2001-01-01", "2001-02-15"],
    }
    return {"config": {"data": {"periods": periods}}, "seen": seen | replaced.get("seen", {})}


INITS = np.array(["2001-03-11T00", "2001-03-12T00"], dtype="datetime64[ns]")
LEADS = np.arange(1, 5) * STEP


def test_scores_of_unseen_times_are_clean():
    assert leaks.check_scoring(provenance(), INITS, LEADS, climatology=spans()["train"]) == []


@pytest.mark.parametrize(
    ("made", "inits", "options", "rule"),
    [
        (provenance(), INITS - np.timedelta64(20, "D"), {}, "scored-on-seen"),
        (provenance(), INITS - np.timedelta64(60, "D"), {}, "scored-on-seen"),
        (provenance(), INITS - np.timedelta64(12, "h"), {}, "scored-on-seen"),
        (provenance(valid=PERIODS["test"]), INITS, {}, "periods-overlap"),
        (provenance(valid=PERIODS["test"]), INITS, {}, "scored-on-seen"),
        (provenance(seen={"train": ["2001-01-01", "2001-03-20"]}), INITS, {}, "scored-on-seen"),
        (
            provenance(seen={"statistics": ["2001-01-01", "2001-04-05"]}),
            INITS,
            {},
            "fitted-outside-training",
        ),
        (provenance(seen={"valid": PERIODS["test"]}), INITS, {}, "checkpoint-choice"),
        (provenance(), INITS, {"climatology": spans()["test"]}, "climatology-of-scored-times"),
    ],
    ids=[
        "validated on",
        "trained on",
        "first leads validated on",
        "validation = test",
        "validation = test, scored",
        "trained on more than the run file says",
        "statistics over all years",
        "chosen by the test period",
        "climatology from the scored split",
    ],
)
def test_scores_that_say_nothing(made, inits, options, rule):
    assert rule in rules(leaks.check_scoring(made, inits, LEADS, **options))


def test_a_provenance_without_periods_is_refused():
    with pytest.raises(DataError, match="names no periods"):
        leaks.check_scoring({"config": {}}, INITS, LEADS)


def forcing_rules(names, **options):
    times = make_source()["time"].values[:5]
    return rules(
        leaks.check_forcings(names, times, np.array([45.0, 0]), np.array([0.0, 90]), **options)
    )


def test_forcings_that_read_the_future():
    assert forcing_rules(["season", "cos_zenith", "day"], observed=["t2m"]) == set()
    assert forcing_rules(["season", "t2m"], observed=["t2m"]) == {"forcing-reads-future"}

    def smoothed(names, times, latitude, longitude):
        fields = forcing_fields(names, times, latitude, longitude)
        return (fields + np.roll(fields, -1, axis=0)) / 2  # half of it is of the next step

    assert forcing_rules(["cos_zenith"], fields=smoothed) == {"forcing-reads-future"}
