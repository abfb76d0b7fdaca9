"""Checks of losses.

A loss whose value at the truth is not zero says so: `zero_at_truth: ClassVar[bool] = False`.
"""

import copy
import unittest
from typing import ClassVar

import torch
from torch import Tensor

from climlstm.plugins import Loss
from climlstm.testing.checks import Conformance, expect, expect_options, pickled

CHANNELS = ("t2m", "z500")
SHAPE = (2, 3, 2, 6, 8)
"""Batch, lead steps, channels, rows, columns."""


class LossTests(Conformance):
    """Promises of a loss; set `loss` to one, made with its options."""

    loss: ClassVar[Loss]

    def test_options_can_be_validated(self) -> None:
        """Its options are the fields of a dataclass, and its interface version fits."""
        expect_options(type(self.loss))

    def test_finite_scalar(self) -> None:
        """It gives one finite number, for any number of samples and lead steps."""
        for shape in (SHAPE, (1, 1, *SHAPE[2:])):
            value = self._loss(*_fields(shape), _weight())
            expect(value.shape == (), f"its shape is {tuple(value.shape)} instead of ()")
            expect(torch.isfinite(value), f"it is {value.item()} for normal deviates {shape}")

    def test_zero_at_truth(self) -> None:
        """A perfect forecast costs nothing, unless `zero_at_truth` is False."""
        if not getattr(self.loss, "zero_at_truth", True):
            raise unittest.SkipTest("declares zero_at_truth = False")
        value = self._of_truth().item()
        expect(abs(value) < 1e-6, f"the loss of a perfect forecast is {value}")

    def test_errors_cost(self) -> None:
        """A forecast far from the truth costs more than the truth itself."""
        wrong, right = self._loss(*_fields(), _weight()), self._of_truth()
        expect(wrong > right, f"noise costs {wrong.item()}, the truth {right.item()}")

    def test_gradient_matches_finite_differences(self) -> None:
        """Its gradient is right, in float64."""
        given, target = _fields((1, 1, 2, 3, 8), dtype=torch.float64)
        given, weight = given.requires_grad_(), _weight(rows=3).double()
        try:
            torch.autograd.gradcheck(
                lambda x: self._loss(x, target, weight), given, atol=1e-6, rtol=1e-4
            )
        except RuntimeError as error:
            raise AssertionError(f"gradient and finite differences differ: {error}") from error

    def test_gradient_is_finite_at_truth(self) -> None:
        """A perfect forecast has a finite gradient (the root of zero has none)."""
        _, target = _fields()
        gradient = self._gradient(target.clone(), target, _weight())
        expect(torch.isfinite(gradient).all(), "the gradient is not finite for a perfect forecast")

    def test_weight_is_honoured(self) -> None:
        """The same error costs more in a channel, and in a row, of greater weight."""
        truth = _fields()[1][:, :, :1, :1].expand(SHAPE)
        noise = _fields(seed=7)[0][:, :, :1, :1]
        heavy_channel = _weight() * torch.tensor([3.0, 1.0])[:, None, None]
        for dim, weight, what in ((0, heavy_channel, "channel"), (1, _weight(), "row")):
            weight = weight / weight.mean()
            nothing = self._loss(truth.clone(), truth, weight)
            light, heavy = weight.mean(dim=2).sum(dim=1 - dim)[:2].sort().indices.tolist()
            costs = []
            for place in (heavy, light):
                prediction = truth.clone()
                prediction.narrow(dim + 2, place, 1).add_(noise)
                costs.append((self._loss(prediction, truth, weight) - nothing).item())
            expect(
                costs[0] > 1.5 * costs[1],
                f"an error in a {what} of about three times the weight costs {costs[0]:.4g}, the "
                f"same error in the other {costs[1]:.4g}",
            )

    def test_cells_without_weight_do_not_count(self) -> None:
        """Neither value nor gradient depend on the target where the weight is zero, NaN or not."""
        prediction, target = _fields()
        weight, hidden = _weight(), target.clone()
        weight[:, 2, 3:5], hidden[..., 2, 3:5] = 0, torch.nan
        weight /= weight.mean()
        wanted, found = (self._loss(prediction, each, weight) for each in (target, hidden))
        expect(
            torch.allclose(found, wanted),
            f"NaN in cells of weight 0 change it from {wanted.item()} to {found.item()}",
        )
        gradient = self._gradient(prediction, hidden, weight)
        expect(torch.isfinite(gradient).all(), "NaN in cells of weight 0 make the gradient NaN")
        expect(not gradient[..., 2, 3:5].any(), "the gradient is not zero in cells of weight 0")

    def test_missing_values_that_count_are_seen(self) -> None:
        """NaN where the weight is not zero makes the loss NaN, so that training stops."""
        prediction, target = _fields()
        target[0, 0, 0, 1, 1] = torch.nan
        value = self._loss(prediction, target, _weight())
        expect(torch.isnan(value), f"it is {value.item()}, as if no value were missing")

    def test_batch_is_the_mean_of_its_samples(self) -> None:
        """The loss of a batch is the mean over samples: workers each have a part of it."""
        prediction, target = _fields()
        whole = self._loss(prediction, target, _weight())
        pairs = zip(prediction, target, strict=True)
        mean = torch.stack([self._loss(p[None], t[None], _weight()) for p, t in pairs]).mean()
        expect(
            torch.allclose(whole, mean, rtol=1e-4),
            f"it is {whole.item()} for the batch, but {mean.item()} in the mean over its samples",
        )

    def test_mixed_precision(self) -> None:
        """A bfloat16 prediction, and autocast, change it by rounding only."""
        prediction, target = _fields()
        exact = self._loss(prediction, target, _weight()).item()
        rounded = self._loss(prediction.bfloat16(), target, _weight()).item()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            cast = self._loss(prediction, target, _weight()).item()
        for value, what in ((rounded, "for a bfloat16 prediction"), (cast, "under autocast")):
            close = abs(value - exact) < 0.05 * abs(exact)
            expect(close, f"it is {value} {what}, but {exact} in float32")

    def test_any_device(self) -> None:
        """It works where the tensors are."""
        devices = ["cuda"] if torch.cuda.is_available() else []
        for device in [*devices, "meta"]:  # "meta" has shapes and devices, but no numbers
            prediction, target, weight = (x.to(device) for x in (*_fields(), _weight()))
            try:
                value = self._loss(prediction, target, weight)
            except RuntimeError as error:
                reads = isinstance(error, NotImplementedError) or "cannot be called" in str(error)
                if device != "meta" or not reads:
                    raise
                raise unittest.SkipTest(f"no GPU here, and it looks at numbers: {error}") from error
            expect(value.device.type == device, f"it is on {value.device}, its inputs on {device}")

    def test_deterministic(self) -> None:
        """The same inputs and the same seed give the same number."""
        values = []
        for _ in range(2):
            torch.manual_seed(3)
            values.append(self._loss(*_fields(), _weight()).item())
        expect(values[0] == values[1], f"it is {values[0]}, then {values[1]}")

    def test_inputs_are_left_alone(self) -> None:
        """Neither prediction nor target nor weight is changed."""
        given = dict(zip(("prediction", "target", "weight"), (*_fields(), _weight()), strict=True))
        before = {name: tensor.clone() for name, tensor in given.items()}
        self._loss(**given)
        for name, tensor in given.items():
            expect(torch.equal(tensor, before[name]), f"it changes its argument '{name}' in place")

    def test_picklable(self) -> None:
        """It can be sent to other workers, and is the same there."""
        value = pickled(self.loss)(*_fields(), weight=_weight(), channels=CHANNELS)
        expect(torch.equal(value, self._loss(*_fields(), _weight())), "a pickled copy differs")
        copy.deepcopy(self.loss)

    def _loss(self, prediction: Tensor, target: Tensor, weight: Tensor) -> Tensor:
        value = self.loss(prediction, target, weight=weight, channels=CHANNELS)
        expect(isinstance(value, Tensor), f"it gives a {type(value).__name__} instead of a tensor")
        return value

    def _of_truth(self) -> Tensor:
        _, target = _fields()
        return self._loss(target.clone(), target, _weight())

    def _gradient(self, prediction: Tensor, target: Tensor, weight: Tensor) -> Tensor:
        leaf = prediction.detach().clone().requires_grad_()
        (gradient,) = torch.autograd.grad(self._loss(leaf, target, weight), leaf)
        return gradient


def _fields(
    shape: tuple[int, ...] = SHAPE, *, seed: int = 0, dtype: torch.dtype = torch.float32
) -> tuple[Tensor, Tensor]:
    """Prediction and target: normal deviates, as normalised fields are."""
    generator = torch.Generator().manual_seed(seed)
    prediction, target = torch.randn(2, *shape, generator=generator, dtype=dtype)
    return prediction, target


def _weight(rows: int = SHAPE[-2]) -> Tensor:
    """Areas of the rows from pole to pole, (C, H, W) with mean 1."""
    edges = torch.linspace(-torch.pi / 2, torch.pi / 2, rows + 1).sin()
    weight = edges.diff()[:, None].expand(SHAPE[2], rows, SHAPE[-1]).clone()
    return weight / weight.mean()
