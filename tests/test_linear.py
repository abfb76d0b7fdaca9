"""Damped persistence and the linear inverse model, on series whose law is known."""

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from climlstm import runs
from climlstm.data.statistics.analogues import Analogues
from climlstm.data.statistics.linear import LinearModel, fit_damping, fit_linear
from climlstm.errors import DataError
from climlstm.evaluation.baselines import Analogue, Linear, Persistence
from climlstm.plugins import create
from climlstm.steps import Step
from climlstm.testing import BaselineTests

STEP = Step.parse("1d")
DIMS = ("time", "latitude", "longitude")
LATITUDE, LONGITUDE = np.array([40.0, 0.0, -40.0]), np.arange(0.0, 360.0, 90.0)


class TestPersistence(BaselineTests):
    baseline = Persistence()


class TestPersistenceOfAnomalies(BaselineTests):
    baseline = Persistence(anomaly=True)


class TestClimatology(BaselineTests):
    baseline = create("baselines", "climatology", {})


class TestDamped(BaselineTests):
    baseline = create("baselines", "damped", {})


class TestLinear(BaselineTests):
    baseline = Linear(eofs=4)


def make_cube(values, gap=()):
    """(time, H, W) as a cube of one channel without the days of `gap`, and its zero climatology."""
    times = pd.date_range("2001-01-01", periods=len(values))
    coords = {"time": times, "latitude": LATITUDE, "longitude": LONGITUDE}
    cube = xr.Dataset({"t2m": (DIMS, values.astype("float32"), {"units": "K"})}, coords=coords)
    zero = xr.zeros_like(cube.isel(time=0, drop=True))
    normal = zero.expand_dims(hour=[0], dayofyear=np.arange(1, 367))
    return cube.isel(time=[n for n in range(len(values)) if n not in gap]), normal


def rotation(steps, noise=0.0):
    """Two patterns of unlike size between which an oscillation turns by 0.4 a day, damped by 0.9
    and kicked at random; the law is the matrix A."""
    generator = np.random.default_rng(1)
    turn = 0.9 * np.array([[np.cos(0.4), -np.sin(0.4)], [np.sin(0.4), np.cos(0.4)]])
    states = [np.array([1.0, 0.0])]
    for _ in range(steps - 1):
        states.append(turn @ states[-1] + generator.normal(0, 1, 2))
    patterns = generator.normal(0, 1, (2, 3, 4))
    fields = np.tensordot(np.array(states), patterns, 1)
    return fields + generator.normal(0, noise, fields.shape), turn


def test_slopes_are_those_of_an_autoregressive_cell():
    """x(t + 1) = r x(t) + e has the slope r ** n after n steps; a constant cell has none."""
    generator = np.random.default_rng(0)
    r = np.linspace(0.2, 0.9, 12).reshape(3, 4)
    series = np.zeros((20_000, 3, 4))
    for step in range(1, len(series)):
        series[step] = r * series[step - 1] + generator.normal(0, 1, (3, 4))
    series[:, 0, 0] = 0.0
    slopes = fit_damping(*make_cube(series), step=STEP, steps=3).slopes[:, 0]
    expected = r ** np.array([1, 2, 3])[:, None, None]
    expected[:, 0, 0] = 0.0
    np.testing.assert_allclose(slopes, expected, atol=0.04)


def test_pairs_never_reach_across_a_gap():
    """Without days 2 and 5, pairs a step apart are (0, 1), (3, 4), and two apart (1, 3), (4, 6)."""
    values = np.array([1.0, 2.0, 9.0, 3.0, 5.0, 9.0, 7.0])[:, None, None] * np.ones((1, 3, 4))
    slopes = fit_damping(*make_cube(values, gap=(2, 5)), step=STEP, steps=2).slopes[:, 0, 0, 0]
    assert slopes[0] == pytest.approx((1 * 2 + 3 * 5) / (1 + 9))
    assert slopes[1] == pytest.approx((2 * 3 + 5 * 7) / (4 + 25))


def test_the_propagator_has_the_eigenvalues_of_the_law():
    fields, turn = rotation(8000)
    model = fit_linear(*make_cube(fields), step=STEP, eofs=2)
    found, true = (np.sort_complex(np.linalg.eigvals(each)) for each in (model.propagator, turn))
    np.testing.assert_allclose(found, true, atol=0.02)
    products = (model.eofs * model.area).reshape(2, -1) @ model.eofs.reshape(2, -1).T
    np.testing.assert_allclose(products, np.eye(2), atol=1e-5)


def test_two_steps_are_one_after_another_and_all_scales_are_kept():
    fields, _ = rotation(400, noise=0.5)
    model = fit_linear(*make_cube(fields), step=STEP, eofs=2)
    start = fields[10][None]
    one, two = model.propagate(start, [1, 2])
    np.testing.assert_allclose(model.propagate(one, [1])[0], two, atol=1e-5)
    assert np.linalg.norm(model.propagate(start, [0])[0] - start) < 1e-5


def test_snapshots_in_blocks_give_what_the_whole_gives(monkeypatch):
    fields, _ = rotation(300, noise=0.3)
    whole = fit_linear(*make_cube(fields), step=STEP, eofs=3)
    monkeypatch.setattr("climlstm.data.statistics.linear.BLOCK_BYTES", 7 * 4 * 12)
    parts = fit_linear(*make_cube(fields), step=STEP, eofs=3)
    np.testing.assert_allclose(parts.propagator, whole.propagator, atol=1e-6)
    np.testing.assert_allclose(parts.damping, whole.damping, atol=1e-6)


def test_a_model_is_kept_on_disk_and_read_back(tmp_path, monkeypatch):
    cube, normal = make_cube(rotation(100, noise=0.3)[0])
    first = fit_linear(cube, normal, step=STEP, eofs=3, cache=tmp_path)
    monkeypatch.setattr("climlstm.data.statistics.linear._fit", None)
    again = fit_linear(cube, normal, step=STEP, eofs=3, cache=tmp_path)
    np.testing.assert_array_equal(again.propagator, first.propagator)
    with pytest.raises(TypeError):  # another number of EOFs is fitted anew
        fit_linear(cube, normal, step=STEP, eofs=2, cache=tmp_path)


@pytest.mark.parametrize(("steps", "eofs", "message"), [(20, 13, "no 13 EOFs"), (8, 8, "pairs")])
def test_more_eofs_than_there_are_data_are_refused(steps, eofs, message):
    with pytest.raises(DataError, match=f"{message}.*Choose fewer"):
        fit_linear(*make_cube(rotation(steps, noise=0.3)[0]), step=STEP, eofs=eofs)


def test_baselines_of_a_run_file_stand_in_scores_and_curves(trained, tmp_path):
    """All four beside the network; the fitted ones are better than persistence at four steps."""
    forecasts = runs.forecast(trained, tmp_path / "f.zarr")
    chosen = ["persistence", "damped", "{name: linear, options: {eofs: 10}}", "climatology"]
    found = runs.evaluate(forecasts, evaluators=["rmse"], baselines=chosen, out=tmp_path / "scores")
    scores = found.scores[found.scores["metric"] == "rmse"]
    assert set(scores["model"]) == {"convlstm", "persistence", "damped", "linear", "climatology"}
    last = scores[scores["lead_time"] == scores["lead_time"].max()]
    values = last.assign(level=last["level"].astype("float64").fillna(0))
    values = values.pivot(index=["variable", "level"], columns="model", values="value")
    assert (values["damped"] < values["persistence"]).all()
    assert (values["linear"] < values["persistence"]).all()
    assert {"rmse_skill_vs_linear", "rmse_skill_vs_damped"} <= set(found.scores["metric"])
    del forecasts.attrs["climlstm_provenance"]
    with pytest.raises(DataError, match="'linear' is fitted to the training period"):
        runs.evaluate(
            forecasts,
            runs.open_cube(trained.config.data),
            evaluators=["rmse"],
            baselines=["linear"],
        )


class TestAnalogue(BaselineTests):
    baseline = Analogue(eofs=4, neighbours=3)


def test_an_analogue_is_what_followed_the_nearest_states():
    """By plain loops over all states of a walk with a gap."""
    generator = np.random.default_rng(3)
    components = generator.normal(size=(40, 2))
    numbers = np.delete(np.arange(42), [15, 30])
    space = LinearModel(
        eofs=np.eye(4)[:2].reshape(2, 1, 2, 2),
        propagator=np.eye(2),
        damping=np.zeros((1, 2, 2)),
        std=np.array([2.0]),
        area=np.ones((2, 2)),
    )
    model = Analogues(space, components, numbers, neighbours=5)
    anomaly = np.zeros((1, 2, 2))
    anomaly[0, 0] = 2 * components[7]
    made = model.propagate(anomaly, [1, 3])
    by_number = dict(zip(numbers, components, strict=True))
    for place, steps in enumerate((1, 3)):
        pairs = [(n, by_number[n + steps]) for n in numbers if n + steps in by_number]
        nearest = sorted(pairs, key=lambda pair: ((by_number[pair[0]] - components[7]) ** 2).sum())
        mean = np.mean([after for _, after in nearest[:5]], axis=0)
        np.testing.assert_allclose(made[place, 0, 0], 2 * mean, rtol=1e-12)
        np.testing.assert_array_equal(made[place, 0, 1], 0)
