"""Checks of models.

A network that cannot follow a shift of the globe, being fully connected for instance, says so:
`equivariant: ClassVar[bool] = False`.
"""

import copy
import inspect
import unittest
from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from climlstm.model.geometry import Geometry
from climlstm.testing.checks import Conformance, expect, expect_options, pickled

BATCH, CHANNELS, FORCING, STATIC, ROWS, COLUMNS, HISTORY = 2, 3, 2, 1, 6, 8, 2

GLOBE = Geometry(ROWS, COLUMNS, periodic=True, north_pole=True, south_pole=True, sign=(1, -1, -1))
REGION = Geometry(ROWS, COLUMNS, sign=(1, -1, -1))


class ModelTests(Conformance):
    """Promises of a network; set `network` to its class and `options` to those to be tested."""

    network: ClassVar[Any]
    options: ClassVar[Mapping[str, Any]] = {}

    def test_options_can_be_validated(self) -> None:
        """It has a dataclass `Options` whose fields all have defaults."""
        expect_options(self.network)
        expect(hasattr(self.network, "Options"), "it has no dataclass 'Options'")
        try:
            self.network.Options()
        except TypeError as error:
            raise AssertionError(f"not every option has a default: {error}") from None

    def test_untrained_is_persistence(self) -> None:
        """Before training it forecasts the last known state, exactly."""
        for geometry in (GLOBE, REGION):
            history, forcing = _inputs(3)
            last = history[:, -1:].expand(-1, 3, -1, -1, -1)
            forecast = _forecast(self._made(geometry), history, forcing)
            expect(torch.equal(forecast, last), "an untrained network changes the state")

    def test_shapes(self) -> None:
        """One state a lead step, for every length of history, lead and batch."""
        for known in (1, 3):
            network = self._made(GLOBE, history=known)
            for leads in (1, 4):
                history, forcing = _inputs(leads, known=known)
                shape = _forecast(network, history[:1], forcing[:1]).shape
                wanted = (1, leads, CHANNELS, ROWS, COLUMNS)
                expect(shape == wanted, f"shape {tuple(shape)} instead of {wanted}")

    def test_steps_are_yielded_one_by_one(self) -> None:
        """A long forecast need not be in memory as a whole."""
        steps = self._made(GLOBE).steps(*_inputs(2))
        expect(iter(steps) is steps, "steps() gives all steps together; make it a generator")

    def test_it_goes_on_from_what_it_is_sent(self) -> None:
        """If it takes corrections, the state that it is sent is the one that it steps from."""
        if not getattr(self.network, "takes_corrections", False):
            raise unittest.SkipTest("does not declare takes_corrections = True")
        history, forcing = _inputs(2)
        steps = self._made(GLOBE).steps(history, forcing)
        sent = next(steps) + 1
        expect(torch.equal(steps.send(sent), sent), "an untrained network leaves what it was sent")

    def test_it_goes_on_from_its_memory(self) -> None:
        """If `steps` takes a memory, a forecast in two calls is that of one."""
        network, memory = self._trained(), dict[str, Tensor]()
        if "memory" not in inspect.signature(network.steps).parameters:
            raise unittest.SkipTest("steps() takes no memory")
        history, forcing = _inputs(5)
        with torch.inference_mode():
            whole = _forecast(network, history, forcing)
            steps = network.steps(history, forcing[:, : HISTORY + 2], memory)
            first = torch.stack(list(steps), dim=1)
            last = torch.cat([history, first], dim=1)[:, -HISTORY:]
            later = torch.stack(list(network.steps(last, forcing[:, 3:], memory)), dim=1)
        both = torch.cat([first, later], dim=1)
        expect(torch.allclose(both, whole, atol=1e-6), "it goes on otherwise than in one call")

    def test_forecast_does_not_see_the_future(self) -> None:
        """A lead step does not depend on the forcing of later ones."""
        history, forcing = _inputs(3)
        changed = forcing.clone()
        changed[:, HISTORY:] += 1  # known transitions and the first lead come before
        network = self._trained()
        first, other = (_forecast(network, history, given)[:, 0] for given in (forcing, changed))
        expect(torch.allclose(first, other), "the first lead step changes with later forcing")

    def test_inputs_matter(self) -> None:
        """History and forcing both change the forecast."""
        network = self._trained()
        history, forcing = _inputs(2)
        tendency = _forecast(network, history, forcing)[:, 0] - history[:, -1]
        for name, given in (("history", (-history, forcing)), ("forcing", (history, -forcing))):
            other = _forecast(network, *given)[:, 0] - given[0][:, -1]
            expect(not torch.allclose(tendency, other), f"the tendency ignores the {name}")

    def test_samples_are_independent(self) -> None:
        """The forecast of one sample does not depend on the others in its batch."""
        network = self._trained().train()
        whole, alone = (_forecast(network, *(x[:n] for x in _inputs(2))) for n in (BATCH, 1))
        expect(torch.allclose(whole[:1], alone, atol=1e-5), "a sample depends on its batch")

    def test_shift_of_the_globe(self) -> None:
        """Shifting the globe in longitude shifts the forecast, unless `equivariant` is False."""
        if not getattr(self.network, "equivariant", True):
            raise unittest.SkipTest("declares equivariant = False")
        network, given = self._trained(), _inputs(2)
        moved = _forecast(network, *(x.roll(3, dims=-1) for x in given))
        wanted = _forecast(network, *given).roll(3, dims=-1)
        expect(
            torch.allclose(moved, wanted, atol=1e-4),
            "the shifted globe's forecast is not the shifted forecast: longitude does not wrap",
        )

    def test_gradient_reaches_every_weight(self) -> None:
        """Every weight is trained."""
        network = self._trained()
        _forecast(network, *_inputs(3)).square().mean().backward()
        idle = [
            name
            for name, weight in network.named_parameters()
            if weight.requires_grad and (weight.grad is None or not weight.grad.any())
        ]
        expect(not idle, f"no gradient reaches {', '.join(idle)}")

    def test_training_lowers_the_loss(self) -> None:
        """A step against the gradient brings the forecast nearer to the truth, here zero."""
        network = self._trained()
        before = _forecast(network, *_inputs(2)).square().mean()
        before.backward()
        reached = [weight for weight in network.parameters() if weight.grad is not None]
        size = torch.stack([weight.grad.square().sum() for weight in reached]).sum().sqrt()
        with torch.no_grad():
            for weight in reached:
                weight -= 1e-3 * weight.grad / size
            after = _forecast(network, *_inputs(2)).square().mean()
        expect(after < before, f"the loss goes from {before.item()} to {after.item()}")

    def test_mixed_precision(self) -> None:
        """With bfloat16 inside it still gives float32, close to what float32 inside gives."""
        exact = self._trained()
        rounded = self._made(GLOBE, precision=torch.bfloat16)
        rounded.load_state_dict(exact.state_dict())
        history, forcing = _inputs(2)
        wanted, found = (_forecast(n, history, forcing) for n in (exact, rounded))
        expect(found.dtype == torch.float32, f"it gives {found.dtype}")
        error = (found - wanted).norm() / (wanted - history[:, -1:]).norm()
        expect(error < 0.1, f"bfloat16 changes the tendency by {100 * error.item():.0f} %")

    def test_deterministic(self) -> None:
        """The same inputs give the same forecast."""
        network = self._trained().eval()
        first, second = (_forecast(network, *_inputs(2)) for _ in range(2))
        expect(torch.equal(first, second), "two forecasts from the same inputs differ")

    def test_inputs_are_left_alone(self) -> None:
        """Neither history nor forcing is changed."""
        given = _inputs(2)
        _forecast(self._trained(), *given)
        for name, found, before in zip(("history", "forcing"), given, _inputs(2), strict=True):
            expect(torch.equal(found, before), f"it changes the {name} in place")

    def test_weights_can_be_stored(self) -> None:
        """Its state_dict makes an equal network; it can be copied and sent to other workers."""
        network, twin = self._trained(), self._made(GLOBE)
        twin.load_state_dict(network.state_dict())
        wanted = _forecast(network, *_inputs(2))
        for other, what in (
            (twin, "its state_dict"),
            (copy.deepcopy(network), "a deep copy"),
            (pickled(network), "a pickled copy"),
        ):
            same = torch.equal(_forecast(other, *_inputs(2)), wanted)
            expect(same, f"{what} forecasts otherwise")

    def _made(
        self, geometry: Geometry, *, history: int = HISTORY, precision: torch.dtype = torch.float32
    ) -> Any:
        torch.manual_seed(0)
        made = self.network(
            *(CHANNELS, FORCING, STATIC),
            history=history,
            geometry=geometry,
            tendency_scale=torch.tensor([0.5, 1.0, 2.0]),
            precision=precision,
            **self.options,
        )
        expect(isinstance(made, nn.Module), f"it is a {type(made).__name__}, not an nn.Module")
        return made

    def _trained(self) -> Any:
        """A network with weights unlike those it starts with."""
        network = self._made(GLOBE)
        generator = torch.Generator().manual_seed(1)
        with torch.no_grad():
            for parameter in network.parameters():
                parameter += 0.05 * torch.randn(parameter.shape, generator=generator)
        return network


def _inputs(leads: int, *, known: int = HISTORY) -> tuple[Tensor, Tensor]:
    """History (B, T, C, H, W) and forcing (B, T - 1 + L, F + S, H, W), always the same."""
    generator = torch.Generator().manual_seed(2)
    sizes = (known, CHANNELS), (known - 1 + leads, FORCING + STATIC)
    history, forcing = (
        torch.randn(BATCH, *size, ROWS, COLUMNS, generator=generator) for size in sizes
    )
    return history, forcing


def _forecast(network: Any, history: Tensor, forcing: Tensor) -> Tensor:
    return torch.stack(list(network.steps(history, forcing)), dim=1)
