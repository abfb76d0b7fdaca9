"""A loss for climlstm that does not reward blurred forecasts."""

from climlstm_spectral.losses import AMSE, zonal_spectra

__all__ = ["AMSE", "zonal_spectra"]
