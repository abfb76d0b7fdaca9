"""Local steps with an outer optimiser: workers learn alone, and meet now and then.

DiLoCo (Douillard et al. 2023, arXiv:2311.08105, algorithm 1): between two meetings each worker
takes steps of AdamW on its own part of the batches. At a meeting the mean way that the workers
have gone is an outer gradient, by which gradient descent with Nesterov's momentum moves the
weights that all share; from there each goes on, with its own moments. So weights travel once in
many steps, instead of gradients at each.
"""

import math
from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn
from torch.nn.utils import parameters_to_vector, vector_to_parameters

from climlstm.config import OuterConfig
from climlstm.training.parallel import Workers


class OuterOptimiser:
    """The weights that the workers share, and their momentum, as vectors of all parameters."""

    def __init__(
        self,
        parameters: Iterable[nn.Parameter],
        config: OuterConfig,
        workers: Workers,
        *,
        precision: torch.dtype = torch.float32,
    ) -> None:
        """precision: number format in which the workers' ways are exchanged."""
        self.parameters = list(parameters)
        self.config = config
        self.workers = workers
        self.precision = precision
        self.shared = parameters_to_vector(self.parameters).detach().clone()
        self.velocity = torch.zeros_like(self.shared)

    def round_length(self, batches: int) -> int:
        """Steps between two meetings in an epoch of `batches` batches."""
        return math.ceil(batches / math.ceil(batches / self.config.every))

    def is_due(self, done: int, batches: int) -> bool:
        """Whether the workers meet after `done` batches of an epoch; they do at its end."""
        return done % self.round_length(batches) == 0 or done == batches

    @torch.no_grad()
    def meet(self) -> None:
        """Move the shared weights along the workers' mean way, and start from there."""
        own = parameters_to_vector(self.parameters)
        gradient = self.workers.mean(self.shared - own, precision=self.precision)
        self.velocity.mul_(self.config.momentum).add_(gradient)
        step = gradient + self.config.momentum * self.velocity
        self.shared -= self.config.learning_rate * step
        vector_to_parameters(self.shared.clone(), self.parameters)

    def tensors(self) -> dict[str, Tensor]:
        """The tensors that `load` needs."""
        return {"outer.shared": self.shared, "outer.velocity": self.velocity}

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Go on from what `tensors` gave; from the weights, where no worker has learned alone."""
        if "outer.shared" in tensors:
            self.shared.copy_(tensors["outer.shared"])
            self.velocity.copy_(tensors["outer.velocity"])
        else:
            self.shared.copy_(parameters_to_vector(self.parameters).detach())
