"""All that a forecast needs: network, normaliser, static fields, and their meaning."""

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn

from climlstm import html, plugins
from climlstm.errors import CheckpointError, ConfigError
from climlstm.model.normaliser import Normaliser
from climlstm.model.spec import Spec

__all__ = ["Forecaster", "Spec"]


class Forecaster(nn.Module):
    """Network, normaliser and static fields together."""

    static: Tensor
    missing: Tensor
    tendency_std: Tensor

    def __init__(
        self,
        spec: Spec,
        *,
        mean: Tensor,
        std: Tensor,
        tendency_std: Tensor,
        static: Tensor | None = None,
        missing: Tensor | None = None,
        precision: torch.dtype = torch.float32,
    ) -> None:
        """An untrained forecaster, which forecasts persistence.

        mean, std, tendency_std: (C,), in the channels' units; of the tendency over one step.
        static: (S, H, W), normalised; may be left out where the spec names none.
        missing: (C, H, W), True where a channel never has a value (sea temperature on land); None:
           it always has. There the input counts as the mean and never changes.
        precision: of the network's convolutions; what enters and leaves it is float32.
        """
        super().__init__()
        self.spec = spec
        self.normaliser = Normaliser(mean, std)
        self.register_buffer("tendency_std", tendency_std.to(torch.float32))
        shape = spec.grid.shape
        self.register_buffer("static", torch.zeros(0, *shape) if static is None else static.float())
        if missing is None:
            missing = torch.zeros(len(spec.channels), 1, 1, dtype=torch.bool)
        self.register_buffer("missing", missing)
        self._check(shape)
        scale = (self.tendency_std / self.normaliser.std)[:, None, None] * ~self.missing
        self.network = plugins.load("models", spec.network)(
            len(spec.channels),
            len(spec.forcing) + spec.noise,
            len(spec.static),
            history=spec.history,
            geometry=spec.geometry,
            tendency_scale=scale,
            precision=precision,
            **plugins.check_options("models", spec.network, spec.options),
        )

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
        """Names of the state channels, in order."""
        return self.spec.channels

    def forward(self, history: Tensor, forcing: Tensor, noise: Tensor | None = None) -> Tensor:
        """The forecast (B, L, C, H, W), normalised; arguments as `steps`."""
        return torch.stack(list(self.steps(history, forcing, noise)), dim=1)

    def steps(
        self, history: Tensor, forcing: Tensor, noise: Tensor | None = None
    ) -> Iterator[Tensor]:
        """Yield the normalised state (B, C, H, W), one lead step after another.

        history: (B, T, C, H, W), normalised; what it holds in missing cells, even NaN, is ignored.
        forcing: (B, T - 1 + L, F, H, W), one for each transition, history's included.
        noise: (B, T - 1 + L, N, H, W), standard normal, as `model.noise` draws it; None where the
           spec has none. Raises ConfigError where it does not fit.
        """
        number = 0 if noise is None else noise.shape[2]
        if number != self.spec.noise:
            raise ConfigError(
                f"The network was made for {self.spec.noise} fields of noise, but got {number}. "
                "Draw them with climlstm.model.noise.draw_noise."
            )
        everywhere = history.masked_fill(self.missing, 0.0)
        static = self.static.expand(*forcing.shape[:2], *self.static.shape)
        fields = [forcing, static] if noise is None else [forcing, noise, static]
        return self.network.steps(everywhere, torch.cat(fields, dim=2))

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
            ("known besides", ", ".join([*spec.forcing, *spec.static]) or "nothing"),
            ("grid", str(spec.grid)),
        ]
        return html.fragment('<div class="name">forecaster</div>', html.facts(pairs))

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
