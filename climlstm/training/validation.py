"""How good the forecaster is on the validation period, beside persistence and climatology."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from climlstm.data.windows.stream import Window
from climlstm.model.forecaster import Forecaster
from climlstm.plugins import Loss
from climlstm.training.members import predict
from climlstm.training.parallel import Workers


@dataclass(frozen=True)
class Validation:
    """Loss, and mean squared errors (L, C) in normalised space, of three ways to forecast."""

    loss: float
    model: Tensor
    persistence: Tensor
    climatology: Tensor

    def skill(self, reference: Tensor, leads: Sequence[str]) -> dict[str, float]:
        """1 - RMSE / RMSE of the reference, mean over channels, at each lead."""
        skill = 1 - (self.model.sqrt() / reference.sqrt().clamp_min(1e-9)).mean(dim=1)
        return {lead: round(value, 4) for lead, value in zip(leads, skill.tolist(), strict=True)}

    def explain(self, channels: Sequence[str], leads: Sequence[str]) -> str:
        """Why the loss is not finite: the channel and lead whose error is not, or the loss."""
        bad = (~self.model.isfinite()).nonzero().tolist()
        if not bad:
            return f"The validation loss is {self.loss}, of forecasts with finite errors"
        lead, channel = bad[0]
        return (
            f"The validation loss is {self.loss}; the first error that is not finite is that of "
            f"{channels[channel]} at {leads[lead]}"
        )

    def record(self, leads: Sequence[str]) -> dict[str, Any]:
        """Loss and skill as plain values, for the record of a validation."""
        return {
            "valid_loss": self.loss,
            "skill_persistence": self.skill(self.persistence, leads),
            "skill_climatology": self.skill(self.climatology, leads),
        }


@torch.inference_mode()
def validate(
    forecaster: Forecaster,
    windows: Iterable[tuple[Window, Tensor]],
    *,
    horizon: int,
    loss: Loss,
    weight: Tensor,
    workers: Workers,
    members: int = 1,
    seed: int = 0,
    stop: Callable[[], bool] = lambda: False,
) -> Validation | None:
    """Score this worker's windows and add up over the workers; None if any has to stop.

    windows: each with the climatology at its target's times, (B, L, C, H, W), normalised.
    weight: (C, H, W) with mean 1.
    members, seed: of the ensemble that a network with noise forecasts; its mean is compared.
    """
    shape = (5, horizon, len(forecaster.channels))
    sums = torch.zeros(shape, dtype=torch.float64, device=workers.device)
    for window, climatology in windows:
        if stop():
            break
        prediction = predict(
            forecaster, forecaster.spec, window, horizon=horizon, members=members, seed=(seed,)
        )
        batch = window.history.shape[0]
        value = loss(prediction, window.target, weight=weight, channels=forecaster.channels)
        persistence = window.history[:, -1:]
        errors = [
            _squared_error(forecast, window.target, weight)
            for forecast in (_mean(prediction), persistence, climatology)
        ]
        ones = torch.ones_like(errors[0])
        sums += torch.stack([*errors, ones * value * batch, ones * batch])
    if workers.any(stop()):
        return None
    model, persistence, climatology, losses, count = workers.total(sums)
    return Validation(
        loss=float((losses / count)[0, 0]),
        model=(model / count).cpu(),
        persistence=(persistence / count).cpu(),
        climatology=(climatology / count).cpu(),
    )


def _mean(prediction: Tensor) -> Tensor:
    """The mean of the members, where there are several."""
    return prediction.mean(dim=0) if prediction.dim() == 6 else prediction


def _squared_error(forecast: Tensor, target: Tensor, weight: Tensor) -> Tensor:
    """Area-weighted mean over the grid, summed over the batch: (L, C)."""
    error = torch.where(weight > 0, forecast - target, 0.0).square() * weight
    return error.sum(dim=(-2, -1)).sum(dim=0) / weight.sum(dim=(-2, -1))
