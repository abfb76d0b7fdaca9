"""Radar nowcasting for climlstm: readers, advection, categorical scores, fractions, spectra."""

from climlstm_nowcast.advection import carry, decibel, motion
from climlstm_nowcast.categorical import Categorical
from climlstm_nowcast.fss import FSS
from climlstm_nowcast.spectrum import RadialSpectrum
from climlstm_nowcast.synthetic import rain_film

__all__ = ["FSS", "Categorical", "RadialSpectrum", "carry", "decibel", "motion", "rain_film"]
