"""The forecasts that a loss sees: one of each window, or several members of an ensemble."""

from collections.abc import Sequence

import numpy as np
from torch import Tensor, nn

from climlstm.data.windows.stream import Window
from climlstm.model.noise import draw_noise
from climlstm.model.spec import Spec


def predict(
    module: nn.Module,
    spec: Spec,
    window: Window,
    *,
    part: slice = slice(None),
    horizon: int,
    members: int,
    seed: Sequence[int],
) -> Tensor:
    """Forecasts of a part of a window's samples: (B, L, C, H, W), or (M, B, L, C, H, W).

    module: the forecaster, or a wrapper of it.
    horizon: lead steps L.
    seed: of the noise, for networks that take any.
    """
    known = window.history.shape[1] - 1
    history, forcing = window.history[part], window.forcing[part, : known + horizon]
    if not spec.noise:
        prediction: Tensor = module(history, forcing)
        return prediction
    history, forcing = (f.repeat(members, *[1] * (f.dim() - 1)) for f in (history, forcing))
    inits = window.init_time[part]
    shape = (forcing.shape[1], spec.noise, *history.shape[-2:])
    numbers = np.repeat(np.arange(members), len(inits)).tolist()
    noise = draw_noise(seed, np.tile(inits, members), numbers, shape, device=history.device)
    several: Tensor = module(history, forcing, noise).unflatten(0, (members, len(inits)))
    return several
