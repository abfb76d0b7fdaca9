"""Plugins: variables, losses, evaluators, baselines, models and transforms come in by one door.

`contracts` says what a plugin must be; `registry` finds and loads it.
"""

from climlstm.plugins.beside import look_beside, modules_beside
from climlstm.plugins.contracts import (
    API_VERSION,
    BASELINE_NEEDS,
    NEEDS,
    Baseline,
    Evaluator,
    Loss,
    Style,
    TrainingPeriod,
    Transform,
    Variable,
)
from climlstm.plugins.discovery import BUILT_IN, SINGULAR, Kind, Plugin, discover
from climlstm.plugins.registry import (
    MODULES,
    State,
    changed,
    check_options,
    complete_options,
    create,
    find,
    identify,
    load,
    load_found,
    missing,
    name_of,
    read_from_a_file,
    recorded_in,
    resolved_as,
    state,
)

__all__ = [
    "API_VERSION", "BASELINE_NEEDS", "BUILT_IN", "MODULES", "NEEDS", "SINGULAR", "Baseline",
    "Evaluator", "Kind", "Loss", "Plugin", "State", "Style", "TrainingPeriod", "Transform",
    "Variable", "changed", "check_options", "complete_options", "create", "discover", "find",
    "identify", "load", "load_found", "look_beside", "missing", "modules_beside", "name_of",
    "read_from_a_file", "recorded_in", "resolved_as", "state",
]  # fmt: skip
