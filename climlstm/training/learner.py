"""A forecaster while it learns: optimiser, learning rate, running mean of the weights."""

import copy
import math
from collections.abc import Mapping, Sequence
from contextlib import nullcontext

import torch
from torch import Tensor, nn

from climlstm.config import TrainingConfig
from climlstm.data.windows.stream import Window
from climlstm.errors import CheckpointError
from climlstm.model.forecaster import Forecaster
from climlstm.plugins import Loss
from climlstm.plugins.running import in_words, running, shape_of, unexpected
from climlstm.training.diverging import StepSums, Watch
from climlstm.training.members import predict
from climlstm.training.outer import OuterOptimiser
from climlstm.training.parallel import Stopwatch, Workers, apart

MOMENTS = ("exp_avg", "exp_avg_sq", "step")
"""State that AdamW keeps for each weight (Loshchilov & Hutter 2019, arXiv:1711.05101)."""


class Learner:
    """Weights in training, and their running mean, which is validated and used for forecasts."""

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
        precision = getattr(torch, config.gradients)
        self.outer = None
        self._parallel: nn.Module = self.forecaster
        if config.outer is None:
            self._parallel = workers.wrap(self.forecaster, precision=precision)
        else:
            weights = self.forecaster.parameters()
            self.outer = OuterOptimiser(weights, config.outer, workers, precision=precision)
        self.stopwatch = Stopwatch(workers.device)
        self.watch = Watch(
            forecaster.channels,
            in_words("losses", config.loss.name, loss),
            workers.device,
            network=in_words("models", forecaster.spec.network, forecaster.network),
        )
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
        factor = 1.0 if self.outer else share * self.workers.world
        total = torch.zeros((), device=self.workers.device)
        forecasts = []
        parts = _parts(window, self.config.micro_batch)
        for part in parts:
            with nullcontext() if part is parts[-1] else apart(self._parallel):
                loss, sums = self._backward(part, window, step=step, factor=factor)
            total += loss
            forecasts.append(sums)
        norm = nn.utils.clip_grad_norm_(self.forecaster.parameters(), self.config.clip)
        self.watch.add(StepSums(step, window.init_time, torch.cat(forecasts), total, norm))
        for group in self.optimiser.param_groups:
            group["lr"] = self.learning_rate(step)
        self.optimiser.step()
        self.optimiser.zero_grad()
        if self.outer is None:
            self._average(step, steps=1)
        return total

    def _backward(
        self, part: slice, window: Window, *, step: int, factor: float
    ) -> tuple[Tensor, Tensor]:
        """Add the gradient of a part of the windows.

        Returns their share of the mean loss, and sums (B, C) of their forecasts.
        """
        with self.stopwatch.timing():  # not backward, in which workers wait for each other
            horizon = self.horizon(step)
            prediction = predict(
                self._parallel,
                self.forecaster.spec,
                window,
                part=part,
                horizon=horizon,
                members=self.config.members,
                seed=(self.config.seed, step),
            )
            target = window.target[part, :horizon]
            loss = self._loss(prediction, target, step) * (len(target) / len(window.target))
        (loss * factor).backward()
        sums = prediction.detach().sum(dim=(-4, -2, -1))  # (B, C), or (M, B, C)
        return loss.detach(), sums if sums.dim() == 2 else sums.sum(dim=0)

    def _loss(self, prediction: Tensor, target: Tensor, step: int) -> Tensor:
        """The loss of a forecast. Raises PluginError, with its name, where it raises or gives
        anything else than a scalar."""
        name, weight = self.config.loss.name, self.weight
        with running("losses", name, self.loss, f"at step {step + 1}"):
            loss = self.loss(prediction, target, weight=weight, channels=self.forecaster.channels)
        if not isinstance(loss, Tensor) or loss.dim() or not loss.is_floating_point():
            raise unexpected(
                "losses", name, self.loss, came=shape_of(loss), expected="a scalar tensor ()"
            )
        return loss

    def meet(self, step: int, *, done: int, batches: int) -> bool:
        """Meet the other workers where that is due; whether all have the same weights now.

        done: batches of the epoch; without an outer optimiser the workers meet in each.
        """
        if self.outer is None:
            return True
        if not self.outer.is_due(done, batches):
            return False
        self.outer.meet()
        self._average(step, steps=self.outer.round_length(batches))
        return True

    def is_finite(self) -> bool:
        """Whether all weights are finite; the same on all workers after a meeting."""
        return all(bool(p.isfinite().all()) for p in self.forecaster.parameters())

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
        """Weights and moments by name; with `averaged`, all that `load` needs.

        Every worker calls it, and the first has it all: where workers learn alone, theirs too.
        """
        tensors: dict[str, Tensor] = {}
        if self.outer is not None:
            tensors |= self.outer.tensors()
            others = self.workers.gather(torch.cat([v.flatten() for v in self._own()]))
            tensors |= {f"worker.{rank}": own for rank, own in enumerate(others)}
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
            self._check_shapes(tensors, prefixes=("weight.", "exp_avg.", "exp_avg_sq."))
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
            self._load_own([tensors[n] for n in _in_order(tensors, "worker.")])
            if self.outer is not None:
                self.outer.load(tensors)
        except (KeyError, RuntimeError, ValueError) as error:
            raise CheckpointError(
                f"The checkpoint belongs to another network than the run file's: {error}. "
                "Resume with the run file that it was made with, or start a run of another name."
            ) from error

    def start_from(self, state: Mapping[str, Tensor]) -> None:
        """Take the weights of another forecaster, a `state_dict`, and nothing else of it.

        Raises CheckpointError where they belong to another network.
        """
        try:
            self._check_shapes(state, prefixes=("",))
        except ValueError as error:
            raise CheckpointError(
                f"A run cannot start from weights of another network: {error}. Make the run's "
                "model and channels like those of the checkpoint."
            ) from error
        for module in (self.forecaster, self.averaged):
            for name, parameter in module.named_parameters():
                parameter.data.copy_(state[name])
        if self.outer is not None:
            self.outer.load({})

    def _check_shapes(self, tensors: Mapping[str, Tensor], *, prefixes: Sequence[str]) -> None:
        """Raises ValueError unless each parameter has its tensor; copying would broadcast others.

        prefixes: of names; a tensor with any but the first may be absent.
        """
        for name, parameter in self.forecaster.named_parameters():
            for prefix in prefixes:
                found = tensors.get(prefix + name)
                if found is None and prefix != prefixes[0]:
                    continue
                shape = None if found is None else tuple(found.shape)
                if found is None or shape != tuple(parameter.shape):
                    raise ValueError(
                        f"'{prefix}{name}' has the shape {shape}, expected {tuple(parameter.shape)}"
                    )
                if not found.is_floating_point():
                    raise ValueError(f"'{prefix}{name}' holds {found.dtype}, expected numbers")

    def _own(self) -> list[Tensor]:
        """The weights and moments of this worker, in a fixed order."""
        state = [self.optimiser.state[p] for p in self.forecaster.parameters()]
        moments = [s[moment] for moment in ("exp_avg", "exp_avg_sq") for s in state]
        return [*(p.data for p in self.forecaster.parameters()), *moments]

    @torch.no_grad()
    def _load_own(self, workers: list[Tensor]) -> None:
        """Load each worker's own state; the mean, if the number of workers has changed."""
        if not workers:
            return
        alike = self.outer is not None and len(workers) == self.workers.world
        mine = workers[self.workers.rank] if alike else torch.stack(workers).mean(dim=0)
        own = self._own()
        for tensor, values in zip(own, mine.split([t.numel() for t in own]), strict=True):
            tensor.copy_(values.view_as(tensor))

    @torch.no_grad()
    def _average(self, step: int, *, steps: int) -> None:
        """Move the running mean after `steps` steps; quickly at first, to forget the start."""
        decay = min(self.config.ema, (1 + step) / (10 + step)) ** steps
        pairs = zip(self.averaged.parameters(), self.forecaster.parameters(), strict=True)
        for mean, now in pairs:
            mean.lerp_(now, 1 - decay)


def _parts(window: Window, size: int | None) -> list[slice]:
    """Slices of windows that are computed together: all, or at most `size`."""
    windows = window.history.shape[0]
    return [slice(i, i + (size or windows)) for i in range(0, windows, size or windows)]


def _in_order(tensors: Mapping[str, Tensor], prefix: str) -> list[str]:
    """The names `prefix0`, `prefix1` …, by number."""
    names = [name for name in tensors if name.startswith(prefix)]
    return sorted(names, key=lambda name: int(name.removeprefix(prefix)))


def _parameter_groups(module: nn.Module, weight_decay: float) -> list[dict[str, object]]:
    """Weights of convolutions and layers decay; biases, scales and peepholes do not."""
    parameters = list(module.parameters())
    return [
        {"params": [p for p in parameters if p.dim() > 1], "weight_decay": weight_decay},
        {"params": [p for p in parameters if p.dim() <= 1], "weight_decay": 0.0},
    ]
