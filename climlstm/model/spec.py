"""Spec: the meaning of the numbers in a forecaster's tensors, as plain data."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import numpy as np

from climlstm import grid
from climlstm.errors import CheckpointError, ConfigError
from climlstm.model.padding import Geometry


@dataclass(frozen=True)
class Spec:
    """Meaning of the numbers in a forecaster's tensors: plain data, kept as JSON beside them."""

    channels: tuple[str, ...]
    """Names of the state channels, in order."""
    units: tuple[str, ...]
    """Units of the channels before normalisation."""
    levels: tuple[float | None, ...]
    """Pressure levels of the channels in hPa; None for a channel without one."""
    sign: tuple[int, ...]
    """Signs of the channels: -1 for a vector component, which turns round at a pole, else 1."""
    forcing: tuple[str, ...]
    static: tuple[str, ...]
    step: timedelta
    latitude: tuple[float, ...]
    """Degrees north, north to south."""
    longitude: tuple[float, ...]
    """Degrees east, eastward."""
    history: int
    """Number of known states that a forecast starts from."""
    network: str = "convlstm"
    """Name of the plugin."""
    options: dict[str, Any] = field(default_factory=dict)
    """All options of the network."""
    noise: int = 0
    """Number of noise fields that enter each transition beside the forcing."""

    @property
    def geometry(self) -> Geometry:
        """How this grid continues beyond its edges."""
        beyond = grid.LatLon(np.array(self.latitude), np.array(self.longitude)).continuation
        poles = {beyond.north, beyond.south} - {"ends"}
        if len(poles) > 1:
            raise ConfigError(
                f"The rows from {self.latitude[0]} to {self.latitude[-1]} degrees north lie on one "
                "pole but stop half a row short of the other. Choose a grid that treats both alike."
            )
        return Geometry(
            len(self.latitude),
            len(self.longitude),
            periodic=beyond.wraps,
            north_pole=beyond.north != "ends",
            south_pole=beyond.south != "ends",
            pole_row="point" in poles,
            sign=self.sign,
        )

    def to_dict(self) -> dict[str, Any]:
        """The spec as plain JSON, which `from_dict` reads."""
        content = dataclasses.asdict(self)
        content["step_seconds"] = content.pop("step").total_seconds()
        return content

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> "Spec":
        """Raises CheckpointError where a key is missing or unknown."""
        known = {f.name for f in dataclasses.fields(cls)} - {"step"} | {"step_seconds"}
        given = {"noise": 0, **content}  # forecasters were written before there was noise
        if set(given) != known:
            raise CheckpointError(
                "The description of the forecaster does not fit this climlstm: it lacks "
                f"{sorted(known - set(given)) or 'nothing'} and has in excess "
                f"{sorted(set(given) - known) or 'nothing'}. "
                "Read it with the version that wrote it."
            )
        fields: dict[str, Any] = {
            key: tuple(value) if isinstance(value, list) else value for key, value in given.items()
        }
        return cls(step=timedelta(seconds=fields.pop("step_seconds")), **fields)
