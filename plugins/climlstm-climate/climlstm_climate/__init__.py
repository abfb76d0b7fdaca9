"""Seasonal forecasts and long rollouts: ENSO and IOD skill, and the climate of a simulation."""

from climlstm_climate.climate import Climate
from climlstm_climate.enso import ENSO
from climlstm_climate.indices import INDICES, area_index

__all__ = ["ENSO", "INDICES", "Climate", "area_index"]
