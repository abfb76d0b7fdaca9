"""Losses for climlstm that do not reward blurred forecasts."""

from climlstm_spectral.losses import AMSE, CRPS, zonal_spectra

__all__ = ["AMSE", "CRPS", "zonal_spectra"]
