"""Noise that makes the members of an ensemble differ.

White noise enters a network as forcing fields, drawn anew at each transition. The network learns to
use it through a loss of several members at once (Lang et al. 2024, arXiv:2412.15832; Alet et al.
2025, arXiv:2506.10772).
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from climlstm.calendars import Times, clock
from climlstm.steps import as_times


def draw_noise(
    seed: Sequence[int],
    init_times: Times,
    members: Sequence[int],
    shape: tuple[int, ...],
    *,
    device: torch.device,
) -> Tensor:
    """Standard normal deviates (B, *shape) for B pairs of an initialisation and a member.

    They depend on the pair and the seed alone, not on the batch or the worker.
    seed: one or more integers from 0.
    """
    noise = torch.empty(len(init_times), *shape, device=device)
    for field, init_time, member in zip(noise, init_times, members, strict=True):
        generator = torch.Generator(device).manual_seed(pair_seed(seed, init_time, member))
        field.normal_(generator=generator)
    return noise


def pair_seed(seed: Sequence[int], init_time: Any, member: int) -> int:
    """A 63-bit seed for one member of one forecast."""
    moment = clock(as_times(init_time)).astype("datetime64[s]")
    seconds = int(moment.astype("int64")) % 2**64  # from 1970, or before
    state = np.random.SeedSequence([*seed, seconds, member]).generate_state(1, np.uint64)
    return int(state[0] >> np.uint64(1))
