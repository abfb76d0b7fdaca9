"""Forecasts: made from a forecaster and a cube, written and read in WeatherBench's layout."""

from climlstm.data.forecasts import ensemble_mean, open_forecasts
from climlstm.data.weatherbench import from_weatherbench, to_weatherbench
from climlstm.forecasting.climpred import to_climpred
from climlstm.forecasting.ensemble import Ensemble, Perturbations, Times
from climlstm.forecasting.forecast import check, histories, possible_inits, with_truth
from climlstm.forecasting.outside import Outside, as_host
from climlstm.forecasting.rollout import forecast_batches
from climlstm.forecasting.store import write_forecasts

__all__ = [
    "Ensemble",
    "Outside",
    "Perturbations",
    "Times",
    "as_host",
    "check",
    "ensemble_mean",
    "forecast_batches",
    "from_weatherbench",
    "histories",
    "open_forecasts",
    "possible_inits",
    "to_climpred",
    "to_weatherbench",
    "with_truth",
    "write_forecasts",
]
