"""The first step of a training at which a forecast, the loss or the gradient is not finite."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

NAMED = 3
"""Number of windows that a message names."""


@dataclass(frozen=True, eq=False)
class StepSums:
    """Sums over the results of one step, which are not finite if any result is not."""

    step: int
    init_time: NDArray[np.datetime64]
    """(B,): last known time of each window."""
    forecast: Tensor
    """(B, C): each channel's forecasts, over leads and grid."""
    loss: Tensor
    gradient: Tensor
    """Norm of the gradient, mean over the workers."""

    def is_finite(self) -> bool:
        """Whether the whole step is finite; on a GPU this waits for it."""
        sums = [self.forecast.flatten(), self.loss.reshape(1), self.gradient.reshape(1)]
        return bool(torch.cat(sums).isfinite().all())


class Watch:
    """Finds the first step that went wrong.

    On a CPU each step is looked at when it is done; on a GPU, which that would slow down, all
    steps since the last look.
    """

    def __init__(
        self, channels: Sequence[str], loss: str, device: torch.device, *, network: str
    ) -> None:
        """Start to watch. loss, network: what messages call them."""
        self.at_once = device.type == "cpu"
        self._channels, self._loss, self._network = tuple(channels), loss, network
        self._since: list[StepSums] = []

    def add(self, sums: StepSums) -> None:
        """Take in a step."""
        self._since.append(sums)

    def look(self) -> str | None:
        """Describe the first failure with its step and windows; None if there was none."""
        since, self._since = self._since, []
        wrong = next((sums for sums in since if not sums.is_finite()), None)
        return None if wrong is None else self._explain(wrong)

    def _explain(self, sums: StepSums) -> str:
        bad = ~sums.forecast.isfinite().cpu().numpy()  # (B, C)
        if bad.any():
            names = [self._channels[number] for number in np.flatnonzero(bad.any(axis=0))]
            channels = "every channel" if len(names) == len(self._channels) else ", ".join(names)
            what = f"the forecast of {channels} by {self._network} is not finite"
            times = sums.init_time[bad.any(axis=1)]
        elif not sums.loss.isfinite():
            what = f"{self._loss} is {float(sums.loss)}, of forecasts that are finite"
            times = sums.init_time
        else:
            norm = float(sums.gradient)
            what = f"the gradient of {self._loss} is {norm}, though the loss is finite"
            times = sums.init_time
        listed = ", ".join(str(time.astype("M8[m]")) for time in times[:NAMED])
        more = f" and {times.size - NAMED} more" if times.size > NAMED else ""
        return f"At step {sums.step + 1} {what} (windows from {listed}{more})"
