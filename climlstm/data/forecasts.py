"""Forecast stores: opened, with the run that made them and the truth that belongs to them.

Nothing here needs the network, so that maps are drawn without loading torch.
"""

import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import xarray as xr

from climlstm import plugins
from climlstm.config import Config, parse_config
from climlstm.data.others import open_cube
from climlstm.data.weatherbench import from_weatherbench, with_our_dimensions
from climlstm.errors import ConfigError, DataError, PluginError
from climlstm.plugins import Kind

logger = logging.getLogger(__name__)

PROVENANCE = "climlstm_provenance"
"""Attribute of forecasts that says which run made them."""

DONE = ".done"
"""Names of the initialisations that `STORE.part` holds, a line each, written after their data."""


def open_forecasts(store: str | Path) -> xr.Dataset:
    """A forecast store as it is in memory: (init_time, lead_time, latitude, longitude), lazy.

    Raises DataError where there is none, or it is not a forecast.

    >>> import climlstm
    >>> forecasts = climlstm.open_forecasts("small.zarr")
    >>> forecasts["msl"].dims
    ('init_time', 'lead_time', 'latitude', 'longitude')
    """
    part = Path(f"{store}.part")
    if "://" not in str(store) and not Path(store).exists():
        if part.exists():
            raise DataError(
                f"{store} is not complete: {len(written(part))} initialisations have been written. "
                "Run the same forecast command again; it goes on where it was interrupted."
            )
        raise DataError(f"There is no forecast store {store}. Check the path.")
    try:
        place = store if "://" in str(store) else Path(store).resolve()  # also for other processes
        stored = xr.open_zarr(place, decode_timedelta=True)
    except (OSError, ValueError, KeyError) as error:
        raise DataError(f"{store} cannot be opened as Zarr: {error}.") from error
    return from_weatherbench(with_our_dimensions(stored, str(store)))


def ensemble_mean(forecasts: xr.Dataset) -> xr.Dataset:
    """The mean of the members, lazily, with all attributes; a single forecast as it is.

    >>> import climlstm
    >>> climlstm.ensemble_mean(climlstm.open_forecasts("small.zarr"))["msl"].dims
    ('init_time', 'lead_time', 'latitude', 'longitude')
    """
    if "realization" not in forecasts.dims:
        return forecasts
    return forecasts.mean("realization", keep_attrs=True)


def open_truth(forecasts: xr.Dataset) -> xr.Dataset:
    """The cube, lazy, of the run that made the forecasts. Raises DataError where they are of none,
    and as `open_cube`."""
    with plugins.resolved_as(provenance_of(forecasts)):
        return open_cube(config_of(forecasts).data)


def config_of(forecasts: xr.Dataset) -> Config:
    """The run whose checkpoint made these forecasts.

    Raises DataError where they were not made by climlstm.
    """
    provenance = provenance_of(forecasts)
    try:
        require_plugins(provenance, ("variables",))
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


def require_plugins(provenance: Mapping[str, Any], kinds: Sequence[Kind]) -> None:
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


def written(part: Path) -> set[str]:
    """Names of the initialisations that an incomplete store holds."""
    try:
        return set((part / DONE).read_text(encoding="utf-8").splitlines())
    except FileNotFoundError:
        return set()
