"""Forecasts: made from a forecaster and a cube, written and read in WeatherBench's layout."""

from climlstm.forecasting.forecast import Times, check, forecast, possible_inits, rollout
from climlstm.forecasting.store import (
    from_weatherbench,
    open_forecasts,
    to_weatherbench,
    write_forecasts,
)

__all__ = [
    "Times",
    "check",
    "forecast",
    "from_weatherbench",
    "open_forecasts",
    "possible_inits",
    "rollout",
    "to_weatherbench",
    "write_forecasts",
]
