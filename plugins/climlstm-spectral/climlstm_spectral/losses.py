"""The loss: an entry point of `climlstm.losses`.

It takes prediction and target (B, L, C, H, W), normalised, and weight (C, H, W) with mean 1; where
the weight is zero, whatever the target holds (NaN too) counts for nothing.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor

from climlstm_spectral.waves import Spectra, total_spectra, zonal_spectra

TINY = 1e-12
"""Variance of normalised fields added to each wavenumber: roots of zero have no gradient."""


@dataclass(frozen=True)
class AMSE:
    """Adjusted mean squared error (Subich et al. 2025, arXiv:2501.19374): forecasts stay sharp.

    The squared error of a wave is that of its amplitude and that of its phase. The second grows
    with the forecast's amplitude, so that where the phase cannot be foreseen it pays to forecast
    no wave: a blurred field. For wavenumber k, with the power spectra X of the forecast and Y of
    the truth and their coherence R, the paper's loss is the sum over k of

        (√X - √Y)² + 2 max(X, Y) (1 - R),

    which is least for R = 1 and X = Y, whatever can be foreseen. The mean squared error has √(XY)
    where this has max(X, Y), so this is the mean squared error and, for each k,
    2 (max(X, Y) - √(XY)) (1 - R) on top, and so it is computed: what the spectra do not see,
    differences between cells next to a pole, and weights of single cells, is not lost.
    """

    waves: Literal["total", "zonal"] = "total"
    """`total`: wavenumbers of spherical harmonics, as in the paper, on global grids. `zonal`: along
    the rows, averaged over these; quicker, and all that there is on a region."""
    factor: Literal["greater", "truth"] = "greater"
    """Weight of decorrelation: the greater of both powers, as in the paper, or that of the truth.
    Spectra of single fields differ by chance where few waves share a wavenumber, and the greater
    of two then costs some amplitude; with that of the truth less is lost."""
    blend: Annotated[float, Field(ge=0, le=1)] = 1.0
    """Share of this loss; the rest is the plain weighted mean squared error."""

    def __call__(
        self, prediction: Tensor, target: Tensor, *, weight: Tensor, channels: Sequence[str]
    ) -> Tensor:
        precise = torch.promote_types(prediction.dtype, torch.float32)  # bfloat16 has no FFT
        kind = prediction.device.type
        # Autocast would round the products of the transforms to bfloat16.
        with torch.autocast(kind if kind in ("cpu", "cuda") else "cpu", enabled=False):
            own, true = (torch.where(weight > 0, f.to(precise), 0.0) for f in (prediction, target))
            plain = (weight * (own - true).square()).mean()
            if self.blend == 0:
                return plain
            spectra = (total_spectra if self.waves == "total" else zonal_spectra)(own, true, weight)
            return plain + self.blend * self._adjustment(spectra).sum(dim=-1).mean()

    def _adjustment(self, spectra: Spectra) -> Tensor:
        """Adjusted error less squared error, by wavenumber; zero at the truth, and its gradient."""
        own, true, cross = spectra
        product = ((own + TINY) * (true + TINY)).sqrt()
        charged = torch.maximum(own, true) if self.factor == "greater" else true
        return 2 * (charged + TINY - product) * (1 - cross / product)
