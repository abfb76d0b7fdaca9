"""Small fields are scored together: the same scores in few calls."""

from dataclasses import dataclass

import numpy as np
import pandas as pd
import pytest

from climlstm.data.statistics.climatology import climatology
from climlstm.evaluation import evaluate, stacks
from climlstm.evaluation.scores import ACC, CRPS, RMSE, Bias, SpreadSkill
from climlstm.evaluation.statistic import GridScore, scores_by_field
from tests.small_forecasts import TIMES, UNITS, make_forecast, random_cube

EVALUATORS = {"rmse": RMSE(), "acc": ACC(), "crps": CRPS(), "spread_skill": SpreadSkill()}


@dataclass(frozen=True)
class Slowest(GridScore):
    """Looks at all lead times of one initialisation."""

    metric = "slowest"

    def area_means(self, mean, forecast, truth):
        return [mean(np.abs(forecast - truth)).max(axis=0, keepdims=True).repeat(len(truth), 0)]


@pytest.fixture
def calls(monkeypatch):
    made = []
    score = GridScore.score
    monkeypatch.setattr(GridScore, "score", lambda *a, **k: made.append(1) or score(*a, **k))
    return made


@pytest.mark.parametrize("holes", [False, True])
@pytest.mark.parametrize("members", [1, 3])
def test_scores_of_stacks_are_those_of_single_cases(monkeypatch, calls, members, holes):
    cube = random_cube()
    forecast = make_forecast(cube, 0.5)
    if members > 1:
        offsets = np.linspace(-1, 1, members)
        forecast = xr_concat([forecast + offset for offset in offsets], UNITS)
    options = {
        "evaluators": EVALUATORS,
        "climatology": climatology(cube, (TIMES[0], TIMES[-1]), channels=list(UNITS)),
        "unusable": [TIMES[9].to_numpy()] if holes else [],
    }
    together = evaluate.evaluate(forecast, cube, **options)
    few = len(calls)
    monkeypatch.setattr(evaluate, "scores_by_field", lambda _: False)
    apart = evaluate.evaluate(forecast, cube, **options)
    assert few == 3 * len(EVALUATORS)  # one stack of forecasts and of each baseline
    assert len(calls) - few == few * together.scores["n"].max()
    pd.testing.assert_frame_equal(together.scores, apart.scores)
    for name, table in apart.cases.items():
        if table.empty:
            assert together.cases[name].empty
            continue
        keys = [c for c in ("model", "init_time", "variable", "lead_time", "region") if c in table]
        found = together.cases[name].sort_values(keys).reset_index(drop=True)
        wanted = table.sort_values(keys).reset_index(drop=True)
        pd.testing.assert_frame_equal(found[list(wanted.columns)], wanted, check_dtype=False)


def xr_concat(parts, units):
    import xarray as xr

    joined = xr.concat(parts, "realization")
    for name, unit in units.items():
        joined[name].attrs["units"] = unit
    return joined


def test_stacks_are_small(monkeypatch, calls):
    cube = random_cube()
    monkeypatch.setattr(stacks, "STACK_BYTES", 1)
    scores = evaluate.evaluate(
        make_forecast(cube), cube, evaluators={"rmse": RMSE()}, climatology=None, baselines={}
    ).scores
    assert len(calls) == scores["n"].max()


def test_only_what_scores_each_field_by_itself_gets_stacks(calls):
    assert all(map(scores_by_field, (RMSE(), Bias(), ACC(), CRPS(), SpreadSkill())))
    assert not scores_by_field(Slowest())
    cube = random_cube()
    found = evaluate.evaluate(
        make_forecast(cube), cube, evaluators={"slowest": Slowest()}, climatology=None, baselines={}
    )
    assert len(calls) == found.scores["n"].max()
