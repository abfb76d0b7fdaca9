"""The loss: an entry point of `climlstm.losses`.

It takes prediction and target (B, L, C, H, W), normalised, and weight (C, H, W) with mean 1; where
the weight is zero, whatever the target holds (NaN too) counts for nothing.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

TINY = 1e-12
"""Variance, of normalised fields, below which a wavenumber counts as empty: roots of zero have no
gradient."""


@dataclass(frozen=True)
class AMSE:
    """Mean squared error with amplitude and phase taken apart, by zonal wavenumber.

    The squared error of a wave is that of its amplitude and that of its phase. The second grows
    with the forecast's amplitude, so that where the phase cannot be foreseen it pays to forecast
    no wave: a blurred field. Here its factor is the power of the truth, so that the best amplitude
    is the true one. The idea is that of Subich et al. 2025 (arXiv:2501.19374); this is not their
    loss: they take total wavenumbers, and the greater of both powers for the factor.
    """

    blend: Annotated[float, Field(ge=0, le=1)] = 1.0
    """Share of this loss; the rest is the plain weighted mean squared error."""

    def __call__(
        self, prediction: Tensor, target: Tensor, *, weight: Tensor, channels: Sequence[str]
    ) -> Tensor:
        own, true, cross = zonal_spectra(prediction, target, weight)
        amplitude = ((own + TINY).sqrt() - (true + TINY).sqrt()).square()
        coherence = cross / ((own + TINY) * (true + TINY)).sqrt()
        adjusted = amplitude + 2 * true * (1 - coherence)
        plain = own + true - 2 * cross  # Parseval: sums up to the weighted mean squared error
        per_wave = self.blend * adjusted + (1 - self.blend) * plain
        return per_wave.sum(dim=-1).mean()


def zonal_spectra(
    prediction: Tensor, target: Tensor, weight: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Power of prediction and target, and of what they share, by zonal wavenumber: (B, L, C, W // 2
    + 1) each.

    Weighted means over rows; they sum up over wavenumbers to the weighted mean squares and mean
    product of the fields. On a region, a wave of number 1 spans the region.
    """
    root = weight.sqrt()
    waves = [
        torch.fft.rfft(root * _widened(torch.where(weight > 0, f, 0.0)), dim=-1, norm="forward")
        for f in (prediction, target)
    ]
    columns = target.shape[-1]
    sides = torch.full((columns // 2 + 1,), 2.0, device=weight.device, dtype=weight.dtype)
    sides[0] = 1  # the mean, and below the shortest wave, stand for themselves alone
    if columns % 2 == 0:
        sides[-1] = 1
    own, true = (wave.real.square() + wave.imag.square() for wave in waves)
    cross = (waves[0] * waves[1].conj()).real
    own, true, cross = ((sides * power).mean(dim=-2) for power in (own, true, cross))
    return own, true, cross


def _widened(field: Tensor) -> Tensor:
    """In float32 at least: squares of bfloat16 lose the small scales, and it has no FFT."""
    return field.to(torch.promote_types(field.dtype, torch.float32))
