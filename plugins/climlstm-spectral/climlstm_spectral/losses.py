"""The losses: entry points of `climlstm.losses`.

Both take prediction and target (B, L, C, H, W), normalised, and weight (C, H, W) with mean 1; where
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


@dataclass(frozen=True)
class CRPS:
    """Continuous ranked probability score of an ensemble, almost fair.

    prediction: (M, B, L, C, H, W), with members in front. A single forecast (B, L, C, H, W) is
    an ensemble of one, whose score is the absolute error.

    E|X - y| - (1 - (1 - fairness) / M) M / (M - 1) E|X - X'| / 2 over members. The fair score
    (Ferro 2014, Q. J. R. Meteorol. Soc. 140, 1917) does not depend on their number, but leaves one
    member free where the others are right; a fairness just below 1 prevents that (Lang et al. 2024,
    arXiv:2412.15832).
    """

    fairness: Annotated[float, Field(ge=0, le=1)] = 0.95
    """1: fair; 0: the score of the ensemble as it is, which asks for too little spread."""

    def __call__(
        self, prediction: Tensor, target: Tensor, *, weight: Tensor, channels: Sequence[str]
    ) -> Tensor:
        members = prediction if prediction.dim() == target.dim() + 1 else prediction[None]
        members = _widened(torch.where(weight > 0, members, 0.0))
        true = _widened(torch.where(weight > 0, target, 0.0))
        score = (members - true).abs().mean(dim=0)
        number = members.shape[0]
        if number > 1:
            share = (1 - (1 - self.fairness) / number) / (number * (number - 1))
            score = score - share * _half_of_all_pairs(members)
        return (weight * score).mean()


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


def _half_of_all_pairs(members: Tensor) -> Tensor:
    """Sum of |X - X'| over pairs i < j of members (M, ...), by their ranks."""
    number = members.shape[0]
    rank = torch.arange(number, device=members.device, dtype=members.dtype)
    factor = (2 * rank - number + 1).reshape(-1, *[1] * (members.dim() - 1))
    return (factor * members.sort(dim=0).values).sum(dim=0)


def _widened(field: Tensor) -> Tensor:
    """In float32 at least: squares of bfloat16 lose the small scales, and it has no FFT."""
    return field.to(torch.promote_types(field.dtype, torch.float32))
