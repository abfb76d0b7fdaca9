"""Winds and fronts as variables of climlstm, and derivatives on the latitude-longitude grid."""

from climlstm_wind.sphere import advection, curl, divergence, gradient
from climlstm_wind.variables import DIV, TFP, VO, WPD100, WS, WS100

__all__ = [
    "DIV",
    "TFP",
    "VO",
    "WPD100",
    "WS",
    "WS100",
    "advection",
    "curl",
    "divergence",
    "gradient",
]
