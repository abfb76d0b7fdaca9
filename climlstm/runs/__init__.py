"""Each step of a run as one function: check, prepare, train, forecast, evaluate.

Each step finds what the one before it left: a checkpoint knows its run file, and a forecast knows
its checkpoint.
"""

from climlstm.data.forecasts import config_of, open_truth
from climlstm.data.others import open_cube
from climlstm.runs.calibrating import calibrate
from climlstm.runs.checking import check_run, chosen_weights
from climlstm.runs.clusters import spread_over
from climlstm.runs.evaluation import RunEvaluation, audit_scoring, evaluate, evaluators_of
from climlstm.runs.forecasting import forecast, parse_times
from climlstm.runs.preparing import Prepared, estimate_preparation, plan_preparation, prepare
from climlstm.runs.several import train_seeds
from climlstm.runs.starting import Started, init
from climlstm.runs.trained import Trained, find_trained, load_forecaster
from climlstm.runs.training import train, tune

__all__ = [
    "Prepared", "RunEvaluation", "Started", "Trained", "audit_scoring", "calibrate",
    "check_run", "chosen_weights", "config_of", "estimate_preparation", "evaluate",
    "evaluators_of", "find_trained", "forecast", "init", "load_forecaster", "open_cube",
    "open_truth", "parse_times", "plan_preparation", "prepare", "spread_over", "train",
    "train_seeds", "tune",
]  # fmt: skip
