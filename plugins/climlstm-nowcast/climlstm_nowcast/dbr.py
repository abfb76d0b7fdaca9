"""The transform `dbr`: rain rates in decibel, in which edges and cores of rain weigh alike."""

from dataclasses import dataclass
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from climlstm_nowcast.advection import DRY_DB, THRESHOLD


@dataclass(frozen=True)
class DBR:
    """10 log10(R) of a rain rate R from `threshold` on; linear below, down to `dry` decibel for 0.

    So radar nowcasts see rain (pysteps: Pulkkinen et al. 2019, Geosci. Model Dev. 12, 4185-4219,
    with 0.1 mm/h and -15 dB).
    """

    threshold: Annotated[float, Field(gt=0)] = THRESHOLD
    """Least rate that counts as rain, in the unit of the channel."""
    dry: float = DRY_DB
    """Decibel where there is no rain; below those of the threshold."""

    def __post_init__(self) -> None:
        if self.dry >= self._least:
            raise ValueError(
                f"dry: {self.dry:g} dB is no less than the {self._least:.3g} dB of the threshold"
            )

    @property
    def _least(self) -> float:
        """Decibel of the threshold."""
        return float(10 * torch.log10(torch.tensor(self.threshold)))

    def forward(self, values: Tensor) -> Tensor:
        rain = 10 * torch.log10(values.clamp_min(self.threshold))
        little = self.dry + (self._least - self.dry) * values.clamp_min(0) / self.threshold
        return torch.where(values < self.threshold, little, rain)

    def inverse(self, values: Tensor) -> Tensor:
        rain = 10 ** (values.clamp_min(self._least) / 10)
        share = (values - self.dry) / (self._least - self.dry)
        return torch.where(values < self._least, share.clamp_min(0) * self.threshold, rain)
