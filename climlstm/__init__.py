"""Distributed weather and climate forecasting with ConvLSTM networks.

Names are imported when they are asked for, so that importing climlstm loads neither torch, Ray nor
cartopy. Datasets have the accessor `dataset.climlstm`.
"""

import importlib
from typing import TYPE_CHECKING, Any

from climlstm.notebook.accessor import register
from climlstm.version import __version__ as __version__

if TYPE_CHECKING:
    from climlstm.config import load_config as load_config
    from climlstm.data.cube.cube import build_cube as build_cube
    from climlstm.data.forecasts import ensemble_mean as ensemble_mean
    from climlstm.data.forecasts import open_forecasts as open_forecasts
    from climlstm.data.inspect import inspect as inspect
    from climlstm.data.others import open_cube as open_cube
    from climlstm.data.sources.catalog import list_sources as list_sources
    from climlstm.data.sources.catalog import open_source as open_source
    from climlstm.forecasting import to_climpred as to_climpred
    from climlstm.plugins import Baseline as Baseline
    from climlstm.plugins import Evaluator as Evaluator
    from climlstm.plugins import Loss as Loss
    from climlstm.plugins import Style as Style
    from climlstm.plugins import Variable as Variable
    from climlstm.runs import calibrate as calibrate
    from climlstm.runs import evaluate as evaluate
    from climlstm.runs import forecast as forecast
    from climlstm.runs import init as init
    from climlstm.runs import load_forecaster as load_forecaster
    from climlstm.runs import prepare as prepare
    from climlstm.runs import train as train
    from climlstm.simulation.simulate import simulate as simulate

_HOMES = {
    "load_config": "climlstm.config",
    "build_cube": "climlstm.data.cube.cube",
    "inspect": "climlstm.data.inspect",
    "list_sources": "climlstm.data.sources.catalog",
    "open_source": "climlstm.data.sources.catalog",
    "ensemble_mean": "climlstm.data.forecasts",
    "open_forecasts": "climlstm.data.forecasts",
    "to_climpred": "climlstm.forecasting",
    "Baseline": "climlstm.plugins",
    "Evaluator": "climlstm.plugins",
    "Loss": "climlstm.plugins",
    "Style": "climlstm.plugins",
    "Variable": "climlstm.plugins",
    "calibrate": "climlstm.runs",
    "evaluate": "climlstm.runs",
    "forecast": "climlstm.runs",
    "init": "climlstm.runs",
    "load_forecaster": "climlstm.runs",
    "open_cube": "climlstm.data.others",
    "prepare": "climlstm.runs",
    "train": "climlstm.runs",
    "simulate": "climlstm.simulation.simulate",
}

__all__ = ["__version__", *_HOMES]  # noqa: PLE0604 (names that __getattr__ resolves)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'climlstm' has no attribute '{name}'")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})


register()
