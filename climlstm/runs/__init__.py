"""What a run file asks for, step by step: check, prepare, train, forecast, evaluate.

Each step finds what the one before it left: a checkpoint knows its run file, and a forecast knows
its checkpoint.
"""

from climlstm.data.run_data import open_cube
from climlstm.runs.checking import check_reading, check_run
from climlstm.runs.clusters import scheduler_of, spread_over
from climlstm.runs.evaluation import audit_scoring, evaluate_run, evaluators_of
from climlstm.runs.forecasting import forecast_run, other_data, parse_times
from climlstm.runs.preparing import plan_preparation, prepare_run
from climlstm.runs.trained import Trained, config_of, find_trained
from climlstm.runs.training import train_run

__all__ = [
    "Trained",
    "audit_scoring",
    "check_reading",
    "check_run",
    "config_of",
    "evaluate_run",
    "evaluators_of",
    "find_trained",
    "forecast_run",
    "open_cube",
    "other_data",
    "parse_times",
    "plan_preparation",
    "prepare_run",
    "scheduler_of",
    "spread_over",
    "train_run",
]
