"""Checkpoints of a run, and the run that a checkpoint or a forecast comes from."""

import functools
import json
import logging
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import xarray as xr

from climlstm import plugins
from climlstm.config import Config, parse_config
from climlstm.data.run_data import open_cube
from climlstm.errors import CheckpointError, ConfigError, DataError, PluginError
from climlstm.model.forecaster import Forecaster
from climlstm.model.saving import read_forecaster, read_json
from climlstm.plugins import Kind
from climlstm.training.checkpoint import best_checkpoint
from climlstm.training.storage import fetch_checkpoint

logger = logging.getLogger(__name__)


PROVENANCE = "climlstm_provenance"
"""Attribute of forecasts that says which run made them."""


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
            _require_plugins(provenance, ("variables", "models", "transforms"))
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


def config_of(forecasts: xr.Dataset) -> Config:
    """The run whose checkpoint made these forecasts.

    Raises DataError where they were not made by climlstm.
    """
    provenance = provenance_of(forecasts)
    try:
        _require_plugins(provenance, ("variables",))
        with plugins.read_from_a_file(), plugins.resolved_as(provenance):
            return parse_config(
                provenance["config"], where="provenance of the forecasts", stored=True
            )
    except (PluginError, ConfigError) as error:
        raise DataError(f"The forecasts cannot be scored here: {error}") from error


def provenance_of(forecasts: xr.Dataset) -> dict[str, Any]:
    """The record of the run that made the forecasts: data, periods, plugins, versions.

    Raises DataError where they have none.
    """
    try:
        provenance = dict(json.loads(forecasts.attrs[PROVENANCE]))
        dict(provenance["config"])
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(
            "The forecasts do not say which run made them (attribute climlstm_provenance): "
            f"{error}. Score those of other models with climlstm.evaluate."
        ) from error
    return provenance


def open_truth(forecasts: xr.Dataset) -> xr.Dataset:
    """The cube, lazy, of the run that made the forecasts. Raises DataError where they are of none,
    and as `open_cube`."""
    with plugins.resolved_as(provenance_of(forecasts)):
        return open_cube(config_of(forecasts).data)


def _require_plugins(provenance: Mapping[str, Any], kinds: Sequence[Kind]) -> None:
    """Raises PluginError, naming all that are missing and how to install each, unless the plugins
    of some kinds that a run recorded are here. Other versions are told in the log."""
    recorded = [plugin for plugin in plugins.recorded_in(provenance) if plugin.kind in kinds]
    try:
        missing, changed = plugins.missing(recorded), plugins.changed(recorded)
    except (TypeError, AttributeError, ValueError) as error:
        raise PluginError(f"its record of plugins is damaged ({error!r}).") from error
    if missing:
        raise PluginError("\n".join(["it was made with plugins that are not here.", *missing]))
    for message in changed:
        logger.warning("Not as it was made: %s", message)
