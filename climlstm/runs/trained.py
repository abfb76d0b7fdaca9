"""Checkpoints of a run, and the run that a checkpoint or a forecast comes from."""

import functools
import logging
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from climlstm import plugins
from climlstm.config import Config, parse_config
from climlstm.data.forecasts import require_plugins
from climlstm.errors import CheckpointError, PluginError
from climlstm.model.forecaster import Forecaster
from climlstm.model.saving import read_forecaster, read_json
from climlstm.training.checkpoint import best_checkpoint
from climlstm.training.storage import fetch_checkpoint

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Trained:
    """A checkpoint and the run that made it."""

    checkpoint: Path
    config: Config
    provenance: dict[str, Any]


def load_forecaster(place: str | Path) -> Forecaster:
    """The network of a run or a checkpoint with all that it needs to forecast.

    place: folder or URL; of a run the best checkpoint is taken.
    Raises CheckpointError where it is neither, or damaged.

    >>> import climlstm
    >>> forecaster = climlstm.load_forecaster("runs/small")
    >>> forecaster.spec.channels
    ('t850', 'msl', 'u10', 'v10', 'z500')
    """
    return read_forecaster(find_trained(place).checkpoint)[0]


def find_trained(place: str | Path) -> Trained:
    """The checkpoint in a folder, or the best one of a run, with its run file.

    place: also a URL, of a run or a checkpoint in an object store.
    Raises CheckpointError where it is neither.
    """
    place = fetch_checkpoint(str(place)) if "://" in str(place) else Path(place)
    if not place.is_dir():
        raise CheckpointError(
            f"There is no folder {place}. Give the folder of a run or of a checkpoint."
        )
    checkpoint = place if (place / "forecaster.json").exists() else best_checkpoint(place)
    description = read_json(checkpoint / "forecaster.json")
    try:
        provenance = dict(description["provenance"])
        content = dict(provenance["config"])
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(
            f"{checkpoint}/forecaster.json does not say which run made it ({error!r}). "
            "Use another checkpoint."
        ) from error
    with plugins.read_from_a_file():
        try:
            require_plugins(provenance, ("variables", "models", "transforms"))
        except PluginError as error:
            raise CheckpointError(f"{checkpoint} cannot be used here: {error}") from error
        with plugins.resolved_as(provenance):
            config = parse_config(content, where=f"{checkpoint}/forecaster.json", stored=True)
    if not math.isfinite(provenance.get("valid_loss", 0.0)):
        logger.warning(
            "%s has not been validated: the run ended, or failed, before its first validation, so "
            "nobody knows how good it is. Go on with --resume, or take another run.",
            checkpoint,
        )
    return Trained(checkpoint, config, provenance)


def as_trained(place: Any) -> Trained:
    """The run at a place, unless it has been found before."""
    return place if isinstance(place, Trained) else find_trained(place)


def as_it_was_made(forecast: Callable[..., Any]) -> Callable[..., Any]:
    """Let a function that takes a run find the plugins that the run was made with."""

    @functools.wraps(forecast)
    def wrapped(trained: Any, *given: Any, **options: Any) -> Any:
        found = as_trained(trained)
        with plugins.resolved_as(found.provenance):
            return forecast(found, *given, **options)

    return wrapped


def origin_of(trained: Trained) -> dict[str, str]:
    """Place and digest of the checkpoint, for the provenance of forecasts."""
    digest = read_json(trained.checkpoint / "forecaster.json")["sha256"]
    return {"checkpoint": str(trained.checkpoint), "digest": digest}
