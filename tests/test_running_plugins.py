"""A plugin that fails while it runs is named: kind, name, distribution, version, what it gave."""

import re

import pytest

from climlstm import runs
from climlstm.config import load_config
from climlstm.errors import DataError, PluginError, TrainingError
from climlstm.runs import check_run, train

MODULE = """
from dataclasses import dataclass
from typing import ClassVar
import numpy as np
import pandas as pd
import torch
from climlstm import Variable
from climlstm.model.convlstm import ConvLSTM

def failing(ds):
    raise KeyError("no such thing")

RAISES = Variable("raises", "", units="m s-1", inputs=("u10",), derive=failing)
TURNED = Variable("turned", "", units="m s-1", inputs=("u10",),
                  derive=lambda ds: ds["u10"].isel(latitude=0))
TEXT = Variable("text", "", units="m s-1", inputs=("u10",),
                derive=lambda ds: ds["u10"].astype(str))
EMPTY = Variable("empty", "", units="m s-1", inputs=("u10",),
                 derive=lambda ds: ds["u10"] * np.nan)
FURLONG = Variable("speedy", "", units="furlongz", inputs=("u10",), derive=lambda ds: ds["u10"] * 2)

@dataclass(frozen=True)
class Late:
    after: int = 2
    def __call__(self, prediction, target, *, weight, channels):
        calls.append(1)
        if len(calls) > self.after:
            raise ZeroDivisionError("weights are gone")
        return (weight * (prediction - target) ** 2).mean()

calls = []

@dataclass(frozen=True)
class Vector:
    def __call__(self, prediction, target, *, weight, channels):
        return (weight * (prediction - target) ** 2).mean(dim=0)

@dataclass(frozen=True)
class NotANumber:
    def __call__(self, prediction, target, *, weight, channels):
        return (weight * (prediction - target) ** 2).mean() * torch.nan

class Narrow(ConvLSTM):
    def steps(self, history, forcing):
        for state in super().steps(history, forcing):
            yield state[:, :-1]

class Breaks(ConvLSTM):
    def steps(self, history, forcing):
        yield history[:, -1]
        raise RuntimeError("shape mismatch")

@dataclass(frozen=True)
class Scorer:
    requires: ClassVar = ()
    fail: str = "score"
    def score(self, forecast, truth):
        if self.fail == "score":
            raise IndexError("out of range")
        return 3.0 if self.fail == "type" else pd.DataFrame({"value": [1.0]})
    def summarise(self, scores):
        raise IndexError("nothing to sum")
"""

ENTRIES = """
    [climlstm.variables]
    raises = faulty_module:RAISES
    turned = faulty_module:TURNED
    text = faulty_module:TEXT
    empty = faulty_module:EMPTY
    speedy = faulty_module:FURLONG
    [climlstm.losses]
    late = faulty_module:Late
    vector = faulty_module:Vector
    nan = faulty_module:NotANumber
    [climlstm.models]
    narrow = faulty_module:Narrow
    breaks = faulty_module:Breaks
    [climlstm.evaluators]
    scorer = faulty_module:Scorer
"""


@pytest.fixture
def faulty(install, run_file):
    """The small run with overrides, where a distribution with faulty plugins is installed."""
    install("faulty", MODULE, ENTRIES, version="0.3")
    return lambda *overrides: load_config(run_file, overrides)


@pytest.mark.parametrize(
    ("loss", "message"),
    [
        ("late", r"failed at step 3: ZeroDivisionError: weights are gone \(faulty_module.py, line"),
        ("vector", r"gave torch.float32 \(1, 5, 32, 64\) instead of a scalar tensor"),
    ],
)
def test_a_loss(faulty, loss, message):
    config = faulty(f"training.loss.name={loss}")
    with pytest.raises(PluginError, match=message) as caught:
        train(config, under_ray=False)
    assert f"The loss '{loss}' of faulty 0.3 (climlstm.losses: faulty_module:" in str(caught.value)
    assert "Update or mend faulty, or name another loss." in str(caught.value)


def test_a_loss_that_is_no_number(faulty):
    with pytest.raises(TrainingError, match=r"At step 1 the loss 'nan' of faulty 0.3 .* is nan"):
        train(faulty("training.loss.name=nan"), under_ray=False)


@pytest.mark.parametrize(
    ("network", "message"),
    [
        ("narrow", r"gave torch.float32 \(.*4, 32, 64\) instead of torch.float32 \(.*5, 32, 64\)"),
        ("breaks", r"failed in steps\(\): RuntimeError: shape mismatch"),
    ],
)
def test_a_network(faulty, network, message):
    with pytest.raises(PluginError, match=message) as caught:
        train(faulty(f"model.name={network}", "training.ramp=0"), under_ray=False)
    assert f"The model '{network}' of faulty 0.3" in str(caught.value)


@pytest.mark.parametrize(
    ("variable", "message"),
    [
        ("raises", r"failed in derive\(\): KeyError: 'no such thing'"),
        ("turned", r"gave float32 \{'time': \d+, 'longitude': 64\} instead of float32 \{'time'"),
        ("text", r"gave <U\d+ "),
        ("empty", "gave no finite value instead of numbers"),
    ],
)
def test_a_variable(faulty, variable, message):
    config = faulty(f"data.state=[t850, {variable}]")
    [finding] = check_run(config).errors
    assert re.search(message, finding.what), finding.what
    assert f"The variable '{variable}' of faulty 0.3" in finding.what
    with pytest.raises(PluginError, match=message):
        train(config, under_ray=False)


def test_a_unit_that_does_not_exist_is_refused_by_check(faulty):
    config = faulty("data.state=[t850, speedy]")
    [finding] = check_run(config, quick=True).errors
    assert "variable 'speedy' of faulty 0.3" in finding.what
    assert "'furlongz'" in finding.value
    with pytest.raises(DataError, match="unit-unknown"):
        train(config, under_ray=False)


@pytest.mark.parametrize(
    ("fail", "message"),
    [
        ("score", r"failed at 2001-03-\d\d.*, of convlstm: IndexError: out of range"),
        ("type", r"gave a float instead of a pandas.DataFrame"),
        ("sum", r"failed in summarise\(\): IndexError: nothing to sum"),
    ],
)
def test_an_evaluator(faulty, trained, tmp_path, fail, message):
    forecasts = runs.forecast(trained, tmp_path / "f.zarr", init_times=["2001-03-20"], steps=2)
    with pytest.raises(PluginError, match=message) as caught:
        runs.evaluate(forecasts, evaluators=[f"{{name: scorer, options: {{fail: {fail}}}}}"])
    assert "The evaluator 'scorer' of faulty 0.3" in str(caught.value)
