"""Channels that are known from outside while forecasting, as fields that enter a network."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from climlstm.errors import ConfigError
from climlstm.model.normaliser import Normaliser
from climlstm.model.spec import Spec


class GivenNormaliser(Normaliser):
    """Transform, mean and standard deviation of channels from outside, and where they have values.

    Their tensors are parts of a forecaster, under `given_normaliser`.
    """

    missing: Tensor

    def __init__(self, spec: Spec, mean: Tensor, std: Tensor, missing: Tensor) -> None:
        """mean, std: (G,). missing: (G, H, W), True where a channel never has a value.

        Raises ConfigError where these are not the channels that the spec gives.
        """
        names = [each.name for each in spec.given]
        super().__init__(mean, std, channels=names, settings=spec.settings)
        self.register_buffer("missing", missing)
        if not len(mean) == len(std) == len(missing) == len(names):
            raise ConfigError(
                f"{len(mean)} means and {len(missing)} masks were given for the channels "
                f"{', '.join(names) or '(none)'} that come from outside; each needs one."
            )

    @classmethod
    def from_state(cls, spec: Spec, state: Mapping[str, Tensor]) -> "GivenNormaliser | None":
        """The one in the `state_dict` of a forecaster; None where its spec gives no channels.

        Raises KeyError where it is missing.
        """
        if not spec.given:
            return None
        return cls(
            spec, *(state[f"given_normaliser.{part}"] for part in ("mean", "std", "missing"))
        )

    def normalise(self, state: Tensor) -> Tensor:
        """(..., G, H, W) in physical units to standard deviations; 0 without values."""
        return super().normalise(state).masked_fill(self.missing, 0.0)


def resolve(
    given: Tensor, sources: Sequence[str], *, known: int, normal: Tensor | None = None
) -> Tensor:
    """Given channels as far as a forecast may know them, (B, T + L, G, H, W), normalised.

    given: observed values, of which those after the first `known` steps are used only for
        sources other than `persisted` and `climatology`; there they may be anything.
    sources: origin of each channel, as in `Given.source`.
    normal: climatology of the same channels and times; needed for `persisted`, which keeps the
        anomaly of the last known step, and for `climatology`.
    """
    if not {"persisted", "climatology"} & set(sources):
        return given
    assert normal is not None
    fields = list(given.unbind(2))
    for number, source in enumerate(sources):
        usual = normal[:, :, number]
        if source == "climatology":
            fields[number] = usual
        elif source == "persisted":
            start = fields[number][:, :known]
            anomaly = start[:, -1:] - usual[:, known - 1 : known]
            fields[number] = torch.cat([start, usual[:, known:] + anomaly], dim=1)
    return torch.stack(fields, dim=2)


def with_given(spec: Spec, forcing: Tensor, given: Tensor) -> Tensor:
    """Forcing and given channels as `Forecaster.steps` takes them: (B, T - 1 + L, F, H, W).

    forcing: (B, T - 1 + L, F, H, W), of the time that each transition leads to.
    given: (B, T + L, G, H, W), normalised, of all times.
    """
    seen = [
        given[:, 1:, number] if at == "target" else given[:, :-1, number]
        for number, at in spec.given_fields
    ]
    return torch.cat([forcing, torch.stack(seen, dim=2)], dim=2) if seen else forcing
