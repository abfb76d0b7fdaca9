"""Everything that exact resume needs, as a folder that is written whole or not at all.

A checkpoint is a forecaster (see model/saving.py), which alone is enough to forecast, with:
training.safetensors   weights as the optimiser has them, its moments
training.json          position, best loss so far, and the digest of the tensors
run.yaml               the run file, complete
metrics.jsonl          the records up to here
"""

import logging
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from torch import Tensor

from climlstm.errors import CheckpointError
from climlstm.model.saving import (
    check_digest,
    digest,
    read_json,
    read_tensors,
    write_json,
    write_tensors,
)

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Position:
    """Progress of a training: `batch` batches of `epoch` are done, `step` steps in all."""

    epoch: int = 0
    batch: int = 0
    step: int = 0


@dataclass(frozen=True)
class Standing:
    """The state of a training besides its tensors."""

    position: Position = Position()
    valid_loss: float = float("inf")
    """Loss of the last validation; infinite before the first."""
    best_loss: float = float("inf")
    since_best: int = 0
    """Validations since the best one."""
    unvalidated: bool = False
    """Whether the run was stopped before the validation that is due at this position."""


def write_training(directory: Path, standing: Standing, tensors: dict[str, Tensor]) -> None:
    """Add the training state to a folder that holds a forecaster."""
    write_tensors(directory / "training.safetensors", tensors)
    content = asdict(standing) | {"sha256": digest(directory / "training.safetensors")}
    write_json(directory / "training.json", content)


def read_standing(directory: Path) -> Standing:
    """Raises CheckpointError where the folder holds no training state."""
    content = read_json(directory / "training.json")
    content.pop("sha256", None)
    try:
        standing = Standing(**(content | {"position": Position(**content["position"])}))
        position = standing.position
        counts = (position.epoch, position.batch, position.step, standing.since_best)
        if any(type(count) is not int or count < 0 for count in counts):
            raise TypeError(f"counts must be whole numbers from 0, found {counts}")
        if not all(isinstance(x, int | float) for x in (standing.valid_loss, standing.best_loss)):
            raise TypeError("losses must be numbers")
        return standing
    except (KeyError, TypeError) as error:
        raise CheckpointError(
            f"{directory}/training.json does not fit this climlstm: {error}. "
            "Resume with the version that wrote it."
        ) from error


def read_training(directory: Path) -> tuple[Standing, dict[str, Tensor]]:
    """State and tensors of a training. Raises CheckpointError where they are damaged."""
    expected = read_json(directory / "training.json").get("sha256", "")
    check_digest(directory / "training.safetensors", expected)
    return read_standing(directory), read_tensors(directory / "training.safetensors")


def name_of(position: Position) -> str:
    """Name of a checkpoint's folder; names sort by time."""
    return f"step-{position.step:09d}"


def tidy(run: Path) -> None:
    """Delete what a killed process left half written or half deleted. Nobody else writes there."""
    for left in [*run.glob(".step-*"), *run.glob(".deleting-*"), *run.glob(".writing-*")]:
        shutil.rmtree(left, ignore_errors=True)


def list_checkpoints(run: Path) -> list[Path]:
    """The checkpoints of a run that are whole, oldest first; damaged ones are named in the log."""
    whole = []
    for directory in sorted(run.glob("step-*")):
        try:
            check(directory)
        except CheckpointError as error:
            logger.warning("leaving out a damaged checkpoint: %s", error)
        else:
            whole.append(directory)
    return whole


def check(directory: Path) -> None:
    """Raises CheckpointError unless a checkpoint is complete and as it was written."""
    for part in ("forecaster", "training"):
        expected = read_json(directory / f"{part}.json").get("sha256", "")
        check_digest(directory / f"{part}.safetensors", expected)


def latest_checkpoint(run: Path) -> Path | None:
    """The checkpoint from which a run is resumed, if it has a whole one."""
    checkpoints = list_checkpoints(run)
    return checkpoints[-1] if checkpoints else None


def best_checkpoint(run: Path) -> Path:
    """The checkpoint with the lowest validation loss. Raises CheckpointError if there is none."""
    return run / best_of(losses_in(run), str(run))


def losses_in(run: Path) -> dict[str, float]:
    """Validation loss of each whole checkpoint of a run by name, oldest first."""
    return {place.name: read_standing(place).valid_loss for place in list_checkpoints(run)}


def best_of(losses: Mapping[str, float], run: str) -> str:
    """Name of the checkpoint with the lowest loss. Raises CheckpointError if there is none."""
    if not losses:
        raise CheckpointError(
            f"{run} holds no whole checkpoint. Train first, or give the folder of a checkpoint."
        )
    return min(losses, key=lambda name: losses[name])


def outdated(names: Iterable[str], losses: Mapping[str, float], keep: int) -> set[str]:
    """Checkpoints to delete: all but the `keep` best and the latest; damaged ones go, too.

    losses: of those that are whole, oldest first.
    """
    best = sorted(losses, key=lambda name: losses[name])[:keep]
    return {*names} - {*best, *list(losses)[-1:]}
