"""A forecaster while it learns: optimiser, learning rate, running mean of the weights."""

import copy
import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from climlstm.config import TrainingConfig
from climlstm.data.stream import Window
from climlstm.errors import CheckpointError
from climlstm.model.forecaster import Forecaster
from climlstm.plugins import Loss
from climlstm.training.parallel import Workers

MOMENTS = ("exp_avg", "exp_avg_sq", "step")
"""What AdamW remembers of each weight (Loshchilov & Hutter 2019, arXiv:1711.05101)."""


class Learner:
    """Weights in training and their running mean, which is what validates and forecasts."""

    def __init__(
        self,
        forecaster: Forecaster,
        loss: Loss,
        weight: Tensor,
        *,
        config: TrainingConfig,
        steps: int,
        workers: Workers,
    ) -> None:
        """weight: (C, H, W) with mean 1; steps: optimiser steps of the whole training."""
        self.config = config
        self.steps = steps
        self.workers = workers
        self.loss = loss
        self.weight = weight.to(workers.device)
        self.forecaster = forecaster.to(workers.device)
        self.averaged = copy.deepcopy(self.forecaster).requires_grad_(False).eval()
        self._parallel = workers.wrap(self.forecaster)
        self.optimiser = torch.optim.AdamW(
            _parameter_groups(self.forecaster, config.weight_decay),
            lr=config.learning_rate,
            betas=(0.9, 0.95),
        )

    def learn(self, window: Window, *, step: int, share: float) -> Tensor:
        """One optimiser step; returns the loss of this worker's part of the batch, detached.

        share: this worker's part of the batch, so that the mean gradient over the workers
        is that of the whole batch also where it does not divide evenly.
        """
        torch.manual_seed(self.config.seed * 1_000_003 + step)  # whatever network or loss draw
        horizon = self.horizon(step)
        known = window.history.shape[1] - 1
        prediction = self._parallel(window.history, window.forcing[:, : known + horizon])
        loss = self.loss(
            prediction,
            window.target[:, :horizon],
            weight=self.weight,
            channels=self.forecaster.channels,
        )
        (loss * share * self.workers.world).backward()
        nn.utils.clip_grad_norm_(self.forecaster.parameters(), self.config.clip)
        for group in self.optimiser.param_groups:
            group["lr"] = self.learning_rate(step)
        self.optimiser.step()
        self.optimiser.zero_grad()
        self._average(step)
        return loss.detach()

    def horizon(self, step: int) -> int:
        """Lead steps trained on at an optimiser step: from 1 to all, evenly over the ramp."""
        ramp = self.config.ramp * self.steps
        if step >= ramp:
            return self.config.horizon
        return 1 + int((self.config.horizon - 1) * step / ramp)

    def learning_rate(self, step: int) -> float:
        """Linear rise, then half a cosine (Loshchilov & Hutter 2017, arXiv:1608.03983) to 1 %."""
        rise = self.config.warmup * self.steps
        if step < rise:
            return self.config.learning_rate * (step + 1) / (rise + 1)
        fall = (step - rise) / max(self.steps - rise, 1)
        return self.config.learning_rate * (0.01 + 0.99 * (1 + math.cos(math.pi * fall)) / 2)

    def tensors(self) -> dict[str, Tensor]:
        """Weights and moments by name; with `averaged`, all that `load` needs."""
        tensors: dict[str, Tensor] = {}
        for name, parameter in self.forecaster.named_parameters():
            tensors[f"weight.{name}"] = parameter
            for moment in MOMENTS:
                if moment in self.optimiser.state[parameter]:
                    tensors[f"{moment}.{name}"] = self.optimiser.state[parameter][moment]
        return tensors

    def load(self, tensors: Mapping[str, Tensor], averaged: Mapping[str, Tensor]) -> None:
        """Go on from what `tensors` and `averaged.state_dict()` gave.

        Raises CheckpointError where they belong to another network.
        """
        try:
            self.averaged.load_state_dict(dict(averaged))
            for name, parameter in self.forecaster.named_parameters():
                parameter.data.copy_(tensors[f"weight.{name}"])
                self.optimiser.state[parameter] = {
                    moment: tensors[f"{moment}.{name}"].to(
                        "cpu" if moment == "step" else parameter.device
                    )
                    for moment in MOMENTS
                    if f"{moment}.{name}" in tensors
                }
        except (KeyError, RuntimeError) as error:
            raise CheckpointError(
                f"The checkpoint belongs to another network than the run file's: {error}. "
                "Resume with the run file that it was made with, or start a run of another name."
            ) from error

    @torch.no_grad()
    def _average(self, step: int) -> None:
        """Follow the weights; at first quickly, so that the start is forgotten."""
        decay = min(self.config.ema, (1 + step) / (10 + step))
        pairs = zip(self.averaged.parameters(), self.forecaster.parameters(), strict=True)
        for mean, now in pairs:
            mean.lerp_(now, 1 - decay)


def _parameter_groups(module: nn.Module, weight_decay: float) -> list[dict[str, object]]:
    """Weights of convolutions and layers decay; biases, scales and peepholes do not."""
    parameters = list(module.parameters())
    return [
        {"params": [p for p in parameters if p.dim() > 1], "weight_decay": weight_decay},
        {"params": [p for p in parameters if p.dim() <= 1], "weight_decay": 0.0},
    ]
