"""All that a forecast needs: network, normaliser, static fields, and their meaning."""

import inspect
from collections.abc import Generator, Iterator, Mapping

import torch
from torch import Tensor, nn

from climlstm import html, plugins
from climlstm.errors import CheckpointError, ConfigError
from climlstm.model.given import GivenNormaliser
from climlstm.model.network import Memory
from climlstm.model.normaliser import Normaliser
from climlstm.model.spec import Spec
from climlstm.model.start import LinearStart
from climlstm.plugins.running import running, shape_of, unexpected

__all__ = ["Forecaster", "Spec"]


class Forecaster(nn.Module):
    """Network, normaliser and static fields together."""

    static: Tensor
    missing: Tensor
    tendency_std: Tensor
    imposed: Tensor | None
    fed_back: Tensor
    seen: Tensor

    def __init__(
        self,
        spec: Spec,
        *,
        mean: Tensor,
        std: Tensor,
        tendency_std: Tensor,
        static: Tensor | None = None,
        missing: Tensor | None = None,
        given: GivenNormaliser | None = None,
        imposed: Tensor | None = None,
        start: LinearStart | None = None,
        precision: torch.dtype = torch.float32,
    ) -> None:
        """An untrained forecaster, which forecasts persistence of the state and mean outputs.

        mean, std, tendency_std: (C,), in the channels' units; of the tendency over one step.
        static: (S, H, W), normalised; may be left out where the spec names none.
        missing: (C, H, W), True where a channel never has a value (sea temperature on land); None:
           it always has. There the input counts as the mean and never changes.
        given: of the channels known from outside, where the spec names any.
        imposed: (C, H, W) from 0 to 1: by how much each step's state is replaced by the channel
           that the spec gives for it; None: nowhere.
        start: what each step starts from instead of persistence; untrained, it is the forecast.
        precision: of the network's convolutions; what enters and leaves it is float32.
        """
        super().__init__()
        self.spec = spec
        self.normaliser = Normaliser(mean, std, channels=spec.channels, settings=spec.settings)
        self.given_normaliser = given
        self.start = start
        self.register_buffer("imposed", imposed)
        self.register_buffer("tendency_std", tendency_std.to(torch.float32))
        shape = spec.grid.shape
        self.register_buffer("static", torch.zeros(0, *shape) if static is None else static.float())
        if missing is None:
            missing = torch.zeros(len(spec.channels), 1, 1, dtype=torch.bool)
        self.register_buffer("missing", missing)
        self._check(shape)
        back = torch.tensor([name not in spec.outputs for name in spec.channels])[:, None, None]
        self.register_buffer("fed_back", back, persistent=False)
        seen = torch.tensor([name in spec.known for name in spec.channels])[:, None, None]
        self.register_buffer("seen", seen, persistent=False)
        change = torch.where(back, (self.tendency_std / self.normaliser.std)[:, None, None], 1.0)
        scale = change * ~self.missing
        self.network = plugins.load("models", spec.network)(
            len(spec.channels),
            len(spec.forcing) + len(spec.given_fields) + spec.noise,
            len(spec.static),
            history=spec.history,
            geometry=spec.geometry,
            tendency_scale=scale,
            precision=precision,
            **plugins.check_options("models", spec.network, spec.options),
        )
        self._corrects = bool(spec.outputs) or imposed is not None or self.normaliser.is_bounded
        self._corrects |= start is not None
        self._check_network()

    @classmethod
    def from_state(
        cls, spec: Spec, state: Mapping[str, Tensor], *, precision: torch.dtype = torch.float32
    ) -> "Forecaster":
        """The forecaster whose `state_dict` was stored.

        Raises CheckpointError where the tensors are not those that the spec calls for.
        """
        try:
            forecaster = cls(
                spec,
                mean=state["normaliser.mean"],
                std=state["normaliser.std"],
                tendency_std=state["tendency_std"],
                static=state["static"],
                missing=state["missing"],
                given=GivenNormaliser.from_state(spec, state),
                imposed=state.get("imposed"),
                start=LinearStart.from_state(state),
                precision=precision,
            )
            forecaster.load_state_dict(dict(state))
        except (KeyError, RuntimeError) as error:
            raise CheckpointError(
                f"The stored tensors are not those of a '{spec.network}' with options "
                f"{spec.options}: {error}. Read them with the version that wrote them."
            ) from error
        return forecaster

    @property
    def channels(self) -> tuple[str, ...]:
        """Names of the predicted channels, in order."""
        return self.spec.channels

    def forward(self, history: Tensor, forcing: Tensor, noise: Tensor | None = None) -> Tensor:
        """The forecast (B, L, C, H, W), normalised; arguments as `steps`."""
        return torch.stack(list(self.steps(history, forcing, noise)), dim=1)

    @property
    def goes_on(self) -> bool:
        """Whether `steps` can go on from its last states and a memory: see `GridNetwork.steps`."""
        return "memory" in inspect.signature(self.network.steps).parameters

    def steps(
        self,
        history: Tensor,
        forcing: Tensor,
        noise: Tensor | None = None,
        memory: Memory | None = None,
    ) -> Iterator[Tensor]:
        """Yield the normalised channels (B, C, H, W), one lead step after another.

        history: (B, T, C, H, W), normalised; what it holds in missing cells, and for outputs that
           are not seen at the start, even NaN, is ignored.
        forcing: (B, T - 1 + L, F, H, W), one for each transition, history's included; behind the
           forcing those of the channels given from outside, see `model.given`.
        noise: (B, T - 1 + L, N, H, W), standard normal, as `model.noise` draws it; None where the
           spec has none. Raises ConfigError where it does not fit.
        memory: as `GridNetwork.steps` takes it; only for a network that `goes_on`.
        """
        number = 0 if noise is None else noise.shape[2]
        if number != self.spec.noise:
            raise ConfigError(
                f"The network was made for {self.spec.noise} fields of noise, but got {number}. "
                "Draw them with climlstm.model.noise.draw_noise."
            )
        forcing = self._where_imposed(forcing)
        everywhere = history.masked_fill(self.missing | ~self.seen, 0.0)
        static = self.static.expand(*forcing.shape[:2], *self.static.shape)
        fields = [forcing, static] if noise is None else [forcing, noise, static]
        more = () if memory is None else (memory,)
        made = self.network.steps(everywhere, torch.cat(fields, dim=2), *more)
        steps = self._checked(made, history)
        if not self._corrects:
            return steps
        return self._corrected(steps, everywhere[:, -1], forcing[:, history.shape[1] - 1 :])

    def _checked(
        self, steps: Iterator[Tensor], history: Tensor
    ) -> Generator[Tensor, Tensor | None, None]:
        """Yield the states of the network, and send it what it shall go on from.

        Raises PluginError, with its name, where it raises or gives anything else than states.
        """
        name, expected = self.spec.network, history[:, -1].shape
        sent: Tensor | None = None
        while True:
            with running("models", name, self.network, "in steps()"):
                state = _advance(steps, sent)
            if state is None:
                return
            if getattr(state, "shape", None) != expected or state.dtype != torch.float32:
                raise unexpected(
                    "models", name, self.network,
                    came=shape_of(state), expected=f"torch.float32 {tuple(expected)}",
                )  # fmt: skip
            sent = yield state

    def _corrected(
        self, steps: Generator[Tensor, Tensor, None], before: Tensor, forcing: Tensor
    ) -> Iterator[Tensor]:
        """Yield states within their bounds, replaced where others are imposed; the network goes on
        from those, without outputs. What the network changes is added to the linear start.

        before: (B, C, H, W), the last known state.
        forcing: (B, L, F, H, W), of the transitions that are predicted.
        """
        state = next(steps)
        for lead, fields in enumerate(forcing.unbind(1), start=1):
            if self.start is not None:
                state = self.start(before, fields, self.spec.forcing) + (state - before)
            if lead == 1:  # an output is forecast whole, not as a change of what was seen
                state = state - torch.where(self.fed_back, 0.0, before)
            state = self._replaced(self.normaliser.bounded(state), fields)
            yield state
            before = self.without_outputs(state)
            if lead < forcing.shape[1]:
                state = steps.send(before)

    def without_outputs(self, state: Tensor) -> Tensor:
        """A state (B, C, H, W) that was forecast, as the next step sees it: 0 for outputs."""
        return torch.where(self.fed_back, state, 0.0)

    def _where_imposed(self, forcing: Tensor) -> Tensor:
        """Forcing (B, T - 1 + L, F, H, W) with what replaces the state only where it does.

        Elsewhere it would show the network the very state that it is to forecast.
        """
        if self.imposed is None:
            return forcing
        spec = self.spec
        seen = torch.ones_like(forcing[0, 0], dtype=torch.bool)
        for number, (given, _) in enumerate(spec.given_fields, start=len(spec.forcing)):
            replaced = spec.given[given].replaces
            if replaced is not None:
                seen[number] = self.imposed[spec.channels.index(replaced)] > 0
        return torch.where(seen, forcing, 0.0)

    def _replaced(self, state: Tensor, fields: Tensor) -> Tensor:
        """A state (B, C, H, W), blended with what the fields (B, F, H, W) of its step impose."""
        if self.imposed is None:
            return state
        spec = self.spec
        outside = state.clone()
        for number, (given, at) in enumerate(spec.given_fields, start=len(spec.forcing)):
            replaced = spec.given[given].replaces
            if at == "target" and replaced is not None:
                outside[:, spec.channels.index(replaced)] = fields[:, number]
        return torch.lerp(state, outside, self.imposed)

    def denormalise(self, state: Tensor) -> Tensor:
        """(..., C, H, W) to physical units, with NaN in missing cells."""
        return self.normaliser.denormalise(state).masked_fill(self.missing, torch.nan)

    def _repr_html_(self) -> str:
        """Summary for notebooks: network, channels, inputs and grid."""
        spec = self.spec
        number = sum(weights.numel() for weights in self.network.parameters())
        options = ", ".join(f"{name} {value}" for name, value in spec.options.items())
        pairs = [
            ("network", f"{spec.network}, {number:,} parameters" + f"; {options}" * bool(options)),
            ("forecasts", ", ".join(map("{} ({})".format, spec.channels, spec.units))),
            ("from", f"{spec.history} step{'s' if spec.history > 1 else ''} of {spec.step}"),
            ("known besides", _known_besides(spec) or "nothing"),
            ("grid", str(spec.grid)),
        ]
        return html.fragment('<div class="name">forecaster</div>', html.facts(pairs))

    def _check_network(self) -> None:
        """Raises ConfigError where states must be corrected and the network does not take them."""
        if self._corrects and not getattr(self.network, "takes_corrections", False):
            raise ConfigError(
                f"The network '{self.spec.network}' steps from its own predictions alone, so it "
                "cannot have 'output', bounds, prescribed masks, a boundary or a linear start: its "
                "steps() must go on from the state that it is sent, and its class say so by "
                "takes_corrections = True. Choose another model, such as convlstm."
            )

    def _check(self, shape: tuple[int, int]) -> None:
        channels = len(self.spec.channels)
        expected: dict[str, tuple[Tensor, set[tuple[int, ...]]]] = {
            "mean": (self.normaliser.mean, {(channels,)}),
            "std": (self.normaliser.std, {(channels,)}),
            "tendency_std": (self.tendency_std, {(channels,)}),
            "static": (self.static, {(len(self.spec.static), *shape)}),
            "missing": (self.missing, {(channels, *shape), (channels, 1, 1)}),
        }
        for name, (tensor, shapes) in expected.items():
            if tuple(tensor.shape) not in shapes:
                raise ConfigError(
                    f"'{name}' has the shape {tuple(tensor.shape)}, but channels "
                    f"{', '.join(self.spec.channels)} and static fields "
                    f"{', '.join(self.spec.static) or '(none)'} on this grid call for "
                    f"{' or '.join(map(str, shapes))}."
                )
        if not bool((self.normaliser.std > 0).all()):
            constant = [
                n for n, s in zip(self.channels, self.normaliser.std, strict=True) if s <= 0
            ]
            raise ConfigError(
                f"The standard deviation of {', '.join(constant)} is not above zero: nothing "
                "varies there, so there is nothing to forecast. Leave the channel out, or make it "
                "static."
            )


def _known_besides(spec: Spec) -> str:
    """Forcings, static fields and channels given from outside, with their origin."""
    given = [f"{each.name} ({each.source})" for each in spec.given]
    return ", ".join([*spec.forcing, *spec.static, *given])


def _advance(steps: Iterator[Tensor], sent: Tensor | None) -> Tensor | None:
    """The next state; None after the last one."""
    if sent is None:
        return next(steps, None)
    try:
        state: Tensor = steps.send(sent)  # type: ignore[attr-defined]
        return state
    except StopIteration:
        return None
