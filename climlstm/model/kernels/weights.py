"""Weights of a ConvLSTM layer as its convolutions want them, and the sums of their gradients."""

import functools
from dataclasses import dataclass

import torch
from torch import Tensor

from climlstm.model.kernels.convolution import Filter


@dataclass(frozen=True)
class Weights:
    """Weights of one layer in the precision and layouts of the convolutions."""

    of_input: Filter
    """(4 C, inputs, k, k)"""
    of_hidden: Filter
    """(4 C, C, k, k)"""
    bias: Tensor
    """(4 C)"""
    peephole: Tensor | None
    """(3, C, 1, 1), in the precision of the cell states"""

    @functools.cached_property
    def of_two_gates(self) -> "Weights":
        """Weights of the gates i and f alone."""
        number = len(self.bias) // 2
        of_x, of_h = (Filter(given.weight[:number]) for given in (self.of_input, self.of_hidden))
        return Weights(of_x, of_h, self.bias[:number], self.peephole)

    @classmethod
    def prepared(
        cls,
        of_input: Tensor,
        of_hidden: Tensor,
        bias: Tensor,
        peephole: Tensor | None,
        dtype: torch.dtype,
    ) -> "Weights":
        """Copies of the parameters in the precision of the convolutions, but for the peephole."""
        of_x, of_h = (
            Filter(weight.detach().to(dtype, memory_format=torch.channels_last))
            for weight in (of_input, of_hidden)
        )
        kept = None if peephole is None else peephole.detach()
        return cls(of_x, of_h, bias.detach().to(dtype), kept)


class Sums:
    """Gradients of the weights of a layer, summed in the precision of its parameters."""

    def __init__(self, dtype: torch.dtype) -> None:
        self.dtype = dtype
        self.found: dict[str, Tensor] = {}

    def add(self, name: str, gradient: Tensor) -> None:
        """Add a gradient, in any precision, to the sum of that name."""
        if name in self.found:
            self.found[name].add_(gradient)
        else:
            self.found[name] = gradient.to(self.dtype)

    def of(self, name: str, like: Tensor) -> Tensor:
        """The sum of that name; zeros, like another tensor, if nothing was added."""
        if name not in self.found:
            self.found[name] = torch.zeros_like(like, dtype=self.dtype)
        return self.found[name]

    def of_weights(self, weights: Weights) -> tuple[Tensor | None, ...]:
        """The sums in the order of `Weights`."""
        return (
            self.found["of_input"],
            self.of("of_hidden", weights.of_hidden.weight),  # zeros: one step from zeros
            self.found["bias"],
            self.found.get("peephole"),
        )
