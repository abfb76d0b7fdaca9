"""Tensors of the last checkpoint of a run, to be compared."""

from pathlib import Path

import torch

from climlstm.model.saving import read_forecaster
from climlstm.training import checkpoint


def tensors_of(run: Path) -> dict[str, torch.Tensor]:
    """All tensors that a run would go on from: averaged and trained weights, moments."""
    latest = checkpoint.latest_checkpoint(run)
    forecaster, _ = read_forecaster(latest)
    return {**forecaster.state_dict(), **checkpoint.read_training(latest)[1]}


def assert_same(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> None:
    assert first.keys() == second.keys()
    for name in first:
        assert torch.equal(first[name], second[name]), name
