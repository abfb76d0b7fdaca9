"""Tables of scores: on screen, on disk, and read again."""

import errno
import os

import numpy as np
import pandas as pd
import pytest

from climlstm.errors import DataError
from climlstm.evaluation.tables import (
    SCORE_COLUMNS,
    infinite_scores,
    join_scores,
    read_scores,
    score_table,
    useful_lead,
    write_scores,
)
from tests.small_forecasts import BIAS, make_forecast, random_cube, run


@pytest.fixture
def cube():
    return random_cube()


def curve(values, metric="acc"):
    leads = pd.to_timedelta(np.arange(1, len(values) + 1), unit="D")
    rows = [
        ("z", 500.0, lead, "global", metric, "forecast", v)
        for lead, v in zip(leads, values, strict=True)
    ]
    table = pd.DataFrame(rows, columns=SCORE_COLUMNS[:7])
    return table.assign(ci_low=np.nan, ci_high=np.nan, n=10, units="1")


@pytest.mark.parametrize(
    ("values", "days", "ended"),
    [
        ([0.9, 0.8, 0.5, 0.7], 2 + 2 / 3, True),  # the first time it falls below counts
        ([0.9, 0.6, 0.4], 2, True),
        ([0.9, 0.8], 2, False),
        ([0.5, 0.4], 0, True),
    ],
)
def test_useful_lead(values, days, ended):
    table = useful_lead(curve(values))
    assert table["useful_lead"].item() / pd.Timedelta("1D") == pytest.approx(days)
    assert table["ended"].item() == ended


def test_useful_lead_of_a_metric_that_is_not_there():
    with pytest.raises(DataError, match=r"no metric 'acc'\. They have: rmse"):
        useful_lead(curve([1.0], metric="rmse"))


def test_score_table_for_the_screen():
    acc = curve([0.91234, 0.8])
    acc.loc[0, ["ci_low", "ci_high"]] = [0.9, 0.92]
    other = acc.iloc[[1]].assign(model="persistence", value=0.5)
    heading, rows = score_table(pd.concat([acc, other]), "acc")
    assert heading == ["variable", "lead", "forecast", "persistence"]
    assert rows == [
        ["z500", "24h", "0.912 [0.9, 0.92]", "–"],
        ["z500", "48h", "0.8", "0.5"],
    ]
    rmse = curve([54.321, 1234.5], metric="rmse").assign(units="m2 s-2")
    assert [row[2] for row in score_table(rmse, "rmse")[1]] == ["54.3", "1234"]
    assert score_table(rmse, "rmse")[1][0][0] == "z500 (m2 s-2)"
    wild = curve([2e34, np.inf], metric="rmse")
    assert [row[2] for row in score_table(wild, "rmse")[1]] == ["2e+34", "inf"]
    assert len(score_table(rmse, "rmse", leads=[pd.Timedelta("2D")])[1]) == 1


def test_scores_are_read_as_they_were_written(cube, tmp_path):
    evaluation = run(make_forecast(cube, 1.0), cube, evaluators=BIAS, baselines=["persistence"])
    write_scores(evaluation, tmp_path / "new" / "folder")
    assert "6h" in (tmp_path / "new" / "folder" / "scores.csv").read_text()
    scores = read_scores(tmp_path / "new" / "folder")
    pd.testing.assert_frame_equal(scores, evaluation.scores, check_dtype=False)


def test_an_interrupted_write_leaves_nothing(cube, tmp_path, monkeypatch):
    evaluation = run(make_forecast(cube), cube, evaluators=BIAS)
    write_scores(evaluation, tmp_path)
    before = (tmp_path / "scores.csv").read_bytes()

    def full(descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(DataError, match=r"cannot be written to .*No space left on device"):
        write_scores(evaluation, tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"scores.csv", "scores.nc"}
    assert (tmp_path / "scores.csv").read_bytes() == before


def test_what_is_no_table_of_scores_is_refused(tmp_path):
    with pytest.raises(DataError, match="There are no scores at"):
        read_scores(tmp_path)
    (tmp_path / "scores.csv").write_text("a,b\n1,2\n")
    with pytest.raises(DataError, match="it has no column variable, level"):
        read_scores(tmp_path)


def test_infinite_scores_are_named():
    wild = curve([2.0, np.inf], metric="rmse")
    assert infinite_scores(wild.iloc[:1]) == infinite_scores(join_scores([], {})) == ""
    assert infinite_scores(wild) == (
        "1 scores are infinite, the first: rmse of 'z500' at 48h, global, of forecast"
    )
