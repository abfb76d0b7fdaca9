"""The conformance kit: built-in plugins pass it, and each defect is caught by its own check."""

import dataclasses
import pathlib
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pandas as pd
import pytest
import torch
import xarray as xr
from torch import nn

from climlstm import plugins, testing
from climlstm.data.cube.variables import WS10
from climlstm.evaluation.bootstrap import Bootstrap
from climlstm.evaluation.scores import RMSE, RankHistogram
from climlstm.model.baselines import CNN
from climlstm.model.losses import MAE, MSE
from climlstm.plugins import Variable

torch.set_num_threads(1)

SMALL = {
    "convlstm": {"hidden": (4, 4), "peephole": True},
    "lstm": {"hidden": 8},
    "cnn": {"hidden": 8, "blocks": 1},
}
QUICK = Bootstrap(resamples=10)


def built_in(kind):
    return [p.name for p in plugins.discover(kind) if p.distribution == plugins.BUILT_IN]


def failed(outcomes):
    return {outcome.name: outcome.reason for outcome in outcomes if outcome.state == "failed"}


@pytest.mark.parametrize("name", built_in("losses"))
def test_built_in_losses_conform(name):
    assert failed(testing.check("losses", f"climlstm:{name}")) == {}


@pytest.mark.parametrize("name", built_in("transforms"))
def test_built_in_transforms_conform(name):
    options = {"scale": 0.01} if name == "log1p" else {}
    assert failed(testing.check("transforms", f"climlstm:{name}", options)) == {}


@pytest.mark.parametrize("name", built_in("variables"))
def test_built_in_variables_conform(name):
    assert failed(testing.check("variables", f"climlstm:{name}")) == {}


@pytest.mark.parametrize("name", built_in("models"))
def test_built_in_models_conform(name):
    assert failed(testing.check("models", f"climlstm:{name}", SMALL[name])) == {}


OF_EVENTS = {name: {"events": ["t2m > 280 K"]} for name in ("brier", "reliability", "twcrps")}
TRIED_ELSEWHERE = ("mae", "bias", "crps", "quantile", "emos", *OF_EVENTS)
"""Evaluators that other tests try in the same way, or that are like one that is tried here."""


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=pytest.mark.slow) if name in TRIED_ELSEWHERE else name
        for name in built_in("evaluators")
    ],
)
def test_built_in_evaluators_conform(name):
    options = dict(OF_EVENTS.get(name, {}))
    known = plugins.check_options("evaluators", f"climlstm:{name}", options)
    options |= {"bootstrap": {"resamples": 10}} if "bootstrap" in known else {}
    assert failed(testing.check("evaluators", f"climlstm:{name}", options)) == {}


class TestSubclassedByAnAuthor(testing.LossTests):
    loss = MSE()


class TestKnownFieldOfAVariable(testing.VariableTests):
    variable = WS10

    def known(self):
        ones = xr.DataArray(np.ones((1, 2, 2)), dims=("time", "latitude", "longitude"))
        return xr.Dataset({"u10": 3 * ones, "v10": -4 * ones}), 5 * ones


@dataclass(frozen=True)
class Offset:
    """Zero at the truth for no channel, and says so."""

    zero_at_truth: ClassVar[bool] = False

    def __call__(self, prediction, target, *, weight, channels):
        return MSE()(prediction, target, weight=weight, channels=channels) + 1


class TestExpectedFailure(testing.LossTests):
    @dataclass(frozen=True)
    class Odd(Offset):
        zero_at_truth: ClassVar[bool] = True

    loss = Odd()
    expected_failures: ClassVar = {"test_zero_at_truth": "has an offset"}


def test_a_promise_that_is_not_made_is_not_checked():
    outcomes = {outcome.name: outcome for outcome in testing.run(testing.LossTests, loss=Offset())}
    assert outcomes["test_zero_at_truth"].state == "skipped"
    assert failed(outcomes.values()) == {}


def broken_loss(call):
    """A loss that computes `call(error, weight, prediction, target)`."""

    @dataclass(frozen=True)
    class Broken:
        def __call__(self, prediction, target, *, weight, channels):
            error = torch.where(weight > 0, prediction - target, 0.0)
            return call(error, weight, prediction, target)

    Broken.__qualname__ = "Broken"
    globals()["Broken"] = Broken  # where pickle looks for it
    return Broken()


def wrong_gradient(error, weight, prediction, target):
    squares = (weight * error.square()).mean()
    return squares.detach() + 2 * (squares - squares.detach())


def in_place(error, weight, prediction, target):
    with torch.no_grad():
        prediction -= target
        prediction += target * 1.001
    return (weight * error.square()).mean()


LOSSES = {
    "test_finite_scalar": lambda e, w, p, t: (w * e.square()).mean(dim=(1, 2, 3, 4)),
    "test_zero_at_truth": lambda e, w, p, t: (w * e.square()).mean() + 0.1,
    "test_errors_cost": lambda e, w, p, t: -(w * e.square()).mean(),
    "test_gradient_matches_finite_differences": wrong_gradient,
    "test_gradient_is_finite_at_truth": lambda e, w, p, t: (
        (w * e.square()).mean(dim=(1, 2, 3, 4)).sqrt().mean()
    ),
    "test_weight_is_honoured": lambda e, w, p, t: e.square().mean(),
    "test_cells_without_weight_do_not_count": lambda e, w, p, t: (w * (p - t).square()).mean(),
    "test_missing_values_that_count_are_seen": lambda e, w, p, t: (w * e.square()).nanmean(),
    "test_batch_is_the_mean_of_its_samples": lambda e, w, p, t: (
        (w * e.square()).mean(dim=(1, 2, 3, 4)).sum()
    ),
    "test_mixed_precision": lambda e, w, p, t: (
        (w * e.square()).mean() * (2 if p.dtype == torch.bfloat16 else 1)
    ),
    "test_any_device": lambda e, w, p, t: (w * (e * torch.ones(8, device="cpu")).square()).mean(),
    "test_deterministic": lambda e, w, p, t: (
        (w * e.square()).mean() * (1 + np.random.default_rng().random())
    ),
    "test_inputs_are_left_alone": in_place,
}


@pytest.mark.parametrize("check", LOSSES)
def test_a_defect_of_a_loss_is_caught_by_the_check_that_names_it(check):
    assert check in failed(testing.run(testing.LossTests, loss=broken_loss(LOSSES[check])))


def test_a_loss_that_cannot_be_pickled_or_validated_is_caught():
    class Local(MAE):
        def __init__(self, power):
            pass

    local = Local(2)
    assert (
        "cannot be pickled" in failed(testing.run(testing.LossTests, loss=local))["test_picklable"]
    )

    class Plain:
        def __call__(self, prediction, target, *, weight, channels):
            return MSE()(prediction, target, weight=weight, channels=channels)

    assert "test_options_can_be_validated" in failed(testing.run(testing.LossTests, loss=Plain()))


def speed(ds):
    return (ds["u10"] ** 2 + ds["v10"] ** 2) ** 0.5


def changes_inputs(ds):
    derived = speed(ds)
    if ds["u10"].chunks is None:
        ds["u10"].values[:] = 0
    return derived


VARIABLES = {
    "test_is_a_variable": {"api_version": 99},
    "test_name": {"name": "wind speed"},
    "test_units": {"units": "metres per fortnite"},
    "test_cf_names": {"units": "K"},
    "test_inputs_are_known": {"inputs": ("u10", "v11")},
    "test_derived_on_every_grid": {"derive": lambda ds: speed(ds) / (ds.latitude < 89)},
    "test_lazy": {"derive": lambda ds: speed(ds.load())},
    "test_one_time_does_not_see_another": {"derive": lambda ds: speed(ds) - speed(ds).mean("time")},
    "test_missing_input_is_named": {
        "derive": lambda ds: speed(ds.assign(v10=ds.get("v10", ds.get("u10"))))
    },
    "test_inputs_are_left_alone": {"derive": changes_inputs},
}


@pytest.mark.parametrize("check", VARIABLES)
def test_a_defect_of_a_variable_is_caught_by_the_check_that_names_it(check):
    broken = dataclasses.replace(WS10, **VARIABLES[check])
    assert check in failed(testing.run(testing.VariableTests, variable=broken))


def test_a_wrong_derivation_is_caught_on_the_known_field():
    class Known(TestKnownFieldOfAVariable):
        __test__ = False

    wrong = dataclasses.replace(WS10, derive=lambda ds: abs(ds["u10"]) + abs(ds["v10"]))
    assert set(failed(testing.run(Known, variable=wrong))) == {"test_known_field"}


def test_what_is_no_variable_is_caught():
    assert "test_is_a_variable" in failed(testing.run(testing.VariableTests, variable="ws10"))


def test_a_variable_on_levels_must_not_end_in_a_digit():
    odd = Variable(name="pv2", long_name="Vorticity", units="s-1", on_levels=True)
    assert set(failed(testing.run(testing.VariableTests, variable=odd))) == {"test_name"}


@dataclass(frozen=True)
class BrokenEvaluator(RMSE):
    """An RMSE with the defect of that name."""

    defect: str = ""
    bootstrap: Bootstrap = QUICK

    def score(self, forecast, truth, *, weight):
        if self.defect == "rows":
            top = forecast.isel(latitude=slice(0, 4))
            return super().score(
                top, truth.isel(latitude=slice(0, 4)), weight=weight.isel(latitude=slice(0, 4))
            )
        if self.defect == "columns":
            picked = {"longitude": slice(0, 4)}
            return super().score(
                forecast.isel(picked), truth.isel(picked), weight=weight.isel(picked)
            )
        if self.defect == "chunks" and forecast["t2m"].chunks:
            forecast = forecast.isel(lead_time=[0])
            truth = truth.isel(lead_time=[0])
        if self.defect == "lead":
            truth.isel(lead_time=1).load()
        if self.defect == "in place":
            forecast["t2m"].values[:] = 0
        if self.defect == "writes":
            pathlib.Path("scores.txt").write_text("done")
        table = super().score(forecast, truth, weight=weight)
        if self.defect == "blind":
            table["mse"] = 1.0
        if self.defect == "NaN" and np.isnan(truth["t2m"].values).any():
            table["mse"] = np.nan
        if self.defect == "random":
            table["mse"] *= np.random.default_rng().random()
        if self.defect == "invents":
            table["mse"] = table["mse"].fillna(0.0)
        return table

    def summarise(self, scores):
        if self.defect == "last":
            scores = scores[scores["init_time"] == scores["init_time"].iloc[-1]]
        table = super().summarise(scores)
        return pd.concat([table, table]) if self.defect == "twice" else table


EVALUATORS = {
    "test_tidy_tables": "twice",
    "test_nothing_to_score": "invents",
    "test_single_lead": "lead",
    "test_missing_cells": "NaN",
    "test_latitude_order": "rows",
    "test_longitude_origin": "columns",
    "test_chunked_equals_whole": "chunks",
    "test_parts_merge_into_the_whole": "last",
    "test_better_and_worse_differ": "blind",
    "test_deterministic": "random",
    "test_inputs_are_left_alone": "in place",
    "test_writes_no_files": "writes",
}


@pytest.mark.parametrize("check", EVALUATORS)
def test_a_defect_of_an_evaluator_is_caught_by_the_check_that_names_it(
    check, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)

    class Only(testing.EvaluatorTests):
        __test__ = False

    for name in [n for n in dir(Only) if n.startswith("test_") and n != check]:
        setattr(Only, name, None)
    broken = BrokenEvaluator(defect=EVALUATORS[check])
    assert set(failed(testing.run(Only, evaluator=broken))) == {check}


def test_an_evaluator_that_needs_what_there_is_not_is_caught():
    class Greedy(RankHistogram):
        needs: ClassVar = ("orography",)

    found = failed(testing.run(testing.EvaluatorTests, evaluator=Greedy()))
    assert "orography" in found["test_options_can_be_validated"]
    assert "test_picklable" in found


class BrokenNetwork(CNN):
    """A CNN with the defect of that name."""

    defect: ClassVar[str] = ""

    def __init__(self, *sizes, **options):
        super().__init__(*sizes, **options)
        if self.defect == "starts elsewhere":
            nn.init.ones_(self.head.bias)
        if self.defect == "idle":
            self.unused = nn.Parameter(torch.zeros(3))
        if self.defect == "not picklable":
            self.call = lambda x: x

    def steps(self, history, forcing):
        if self.defect == "in place":
            history *= 1.01
        if self.defect == "future":
            forcing = forcing + forcing[:, -1:]
        if self.defect == "forgets":
            forcing = torch.zeros_like(forcing)
        if self.defect == "batch":
            forcing = forcing - forcing.mean(0, keepdim=True)
        if self.defect == "seam":
            forcing = forcing * torch.arange(8)
        if self.defect == "random":
            forcing = forcing + torch.randn(1)
        steps = super().steps(history, forcing)
        if self.defect == "shape":
            return (state.flatten(1) for state in steps)
        if self.defect == "list":
            return list(steps)
        if self.defect == "half":
            return (state.to(self.precision) for state in steps)
        if self.defect == "against":
            return (_turned(state) for state in steps)
        return steps


def _turned(state):
    """The state, with the gradient of its negative."""
    return 2 * state.detach() - state


MODELS = {
    "test_untrained_is_persistence": "starts elsewhere",
    "test_shapes": "shape",
    "test_steps_are_yielded_one_by_one": "list",
    "test_forecast_does_not_see_the_future": "future",
    "test_inputs_matter": "forgets",
    "test_samples_are_independent": "batch",
    "test_shift_of_the_globe": "seam",
    "test_gradient_reaches_every_weight": "idle",
    "test_training_lowers_the_loss": "against",
    "test_mixed_precision": "half",
    "test_deterministic": "random",
    "test_inputs_are_left_alone": "in place",
    "test_weights_can_be_stored": "not picklable",
}


@pytest.mark.parametrize("check", MODELS)
def test_a_defect_of_a_model_is_caught_by_the_check_that_names_it(check, monkeypatch):
    monkeypatch.setattr(BrokenNetwork, "defect", MODELS[check])
    outcomes = testing.run(testing.ModelTests, network=BrokenNetwork, options=SMALL["cnn"])
    assert check in failed(outcomes)


def test_a_model_without_options_is_caught():
    outcomes = testing.run(testing.ModelTests, network=nn.Module)
    assert "test_options_can_be_validated" in failed(outcomes)


def test_the_sound_original_of_each_broken_plugin_passes():
    assert failed(testing.run(testing.LossTests, loss=broken_loss(squared))) == {}
    assert failed(testing.run(testing.VariableTests, variable=WS10)) == {}
    assert failed(testing.run(testing.EvaluatorTests, evaluator=BrokenEvaluator())) == {}
    outcomes = testing.run(testing.ModelTests, network=BrokenNetwork, options=SMALL["cnn"])
    assert failed(outcomes) == {}


def squared(error, weight, prediction, target):
    return (weight * error.square()).mean()
