"""Distributed weather and climate forecasting with ConvLSTM networks.

Names are resolved when asked for, so that importing climlstm loads neither torch, Ray nor cartopy.
Datasets have the accessor `dataset.climlstm`.
"""

import importlib
from typing import Any

from climlstm.notebook.accessor import register
from climlstm.version import __version__ as __version__

_HOMES = {
    "load_config": "climlstm.config",
    "list_sources": "climlstm.data.sources.catalog",
    "open_source": "climlstm.data.sources.catalog",
    "build_cube": "climlstm.data.cube.cube",
    "simulate": "climlstm.simulation.simulate",
    "train": "climlstm.training.loop",
    "forecast": "climlstm.forecasting",
    "open_forecasts": "climlstm.forecasting",
    "evaluate": "climlstm.evaluation.evaluate",
}

__all__ = ["__version__", *_HOMES]  # noqa: PLE0604 (names that __getattr__ resolves)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'climlstm' has no attribute '{name}'")
    return getattr(importlib.import_module(_HOMES[name]), name)


register()
