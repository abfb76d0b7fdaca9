"""Whether a run may go on from a checkpoint: the same data, in the same order."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from climlstm.errors import ConfigError

ADDRESS = ("catalog", "source", "parameters", "statistics")
"""Keys of the record of the data that depend on where they lie and on climlstm's version."""

LEARNED_FROM_DATA = (
    *("normaliser.mean", "normaliser.std", "tendency_std", "missing"),
    *("given_normaliser.mean", "given_normaliser.std", "given_normaliser.missing"),
)
"""Tensors of a forecaster that come from the whole training period."""


def require_same_data(
    directory: Path,
    *,
    recorded: Mapping[str, Any],
    now: Mapping[str, Any],
    kept: Mapping[str, Tensor],
    fresh: Mapping[str, Tensor],
) -> None:
    """Raise ConfigError unless a checkpoint was trained on the data that the run file names.

    recorded, now: what provenance says of the data, in the checkpoint and for this run.
    kept, fresh: tensors of the checkpoint's forecaster, and of an untrained one for this run.

    Data that were moved, and data that an earlier version named otherwise, are the same data if
    channels, region, step and periods agree and the statistics of the training period are equal
    bit for bit. For a run that started from another forecaster they are that one's, which says
    nothing: pass it no `fresh` tensors.
    """
    if recorded == now:
        return
    differing = [key for key in {**recorded, **now} if recorded.get(key) != now.get(key)]
    if set(differing) <= {*ADDRESS} and fresh:
        names = [name for name in LEARNED_FROM_DATA if name in fresh]
        if all(name in kept and torch.equal(kept[name], fresh[name].cpu()) for name in names):
            return
    told = "; ".join(f"{key}: {recorded.get(key)} there, {now.get(key)} here" for key in differing)
    raise ConfigError(
        f"{directory} was trained on other data or periods than this run file names ({told}). "
        "Start a run of another name."
    )


def require_same_order(
    directory: Path, recorded: Mapping[str, Any] | None, now: Mapping[str, Any]
) -> None:
    """Raise ConfigError unless a checkpoint took its windows in the order of this run.

    recorded: None in checkpoints of versions that did not write the order down.
    """
    if recorded not in (None, now):
        raise ConfigError(
            f"{directory} took its windows in another order than this run file gives, so that "
            f"some would come twice and others not at all: {recorded} there, {now} here. Set "
            "data.memory, training.batch_size and training.seed to what "
            f"{directory / 'run.yaml'} says, or start a run of another name."
        )
