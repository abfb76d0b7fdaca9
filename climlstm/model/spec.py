"""Spec: the meaning of the numbers in a forecaster's tensors, as plain data."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import numpy as np

from climlstm import grid
from climlstm.errors import CheckpointError, ConfigError
from climlstm.grid import Grid
from climlstm.model.geometry import Geometry
from climlstm.steps import Step


@dataclass(frozen=True)
class Given:
    """A channel that is known from outside while forecasting: prescribed, or of a host model."""

    name: str
    """Name in the cube."""
    source: str
    """Origin of its values in forecasts: `observed`, `persisted`, `climatology`, or the name of a
    source with forecasts."""
    at: tuple[str, ...] = ("target",)
    """Times at which a step sees it: `input`, where it starts from; `target`, where it leads to."""
    replaces: str | None = None
    """State channel whose place it takes after each step, as far as `Forecaster.imposed` says."""


@dataclass(frozen=True)
class Spec:
    """Meaning of the numbers in a forecaster's tensors: plain data, kept as JSON beside them."""

    channels: tuple[str, ...]
    """Names of the predicted channels, in order: state first, then output."""
    units: tuple[str, ...]
    """Units of the channels before normalisation."""
    levels: tuple[float | None, ...]
    """Pressure levels of the channels in hPa; None for a channel without one."""
    sign: tuple[int, ...]
    """Signs of the channels: -1 for a vector component, which turns round at a pole, else 1."""
    forcing: tuple[str, ...]
    static: tuple[str, ...]
    step: Step
    grid: Grid
    """Where rows and columns lie."""
    history: int
    """Number of known states that a forecast starts from."""
    network: str = "convlstm"
    """Name of the plugin."""
    options: dict[str, Any] = field(default_factory=dict)
    """All options of the network."""
    noise: int = 0
    """Number of noise fields that enter each transition beside the forcing."""
    outputs: tuple[str, ...] = ()
    """Those of the channels that are predicted whole and never fed back."""
    given: tuple[Given, ...] = ()
    """Channels that are known from outside."""
    start: str = "persistence"
    """Baseline that each step starts from, before the network adds its tendency."""
    settings: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Channels' `transform` (name and options), `minimum`, `maximum`, and whether an output is
    `seen_at_start`, where they have any."""

    @property
    def known(self) -> tuple[str, ...]:
        """Channels whose values a forecast starts from: the state, and outputs that are seen."""
        seen = [name for name, each in self.settings.items() if each.get("seen_at_start")]
        return tuple(name for name in self.channels if name in seen or name not in self.outputs)

    @property
    def given_fields(self) -> tuple[tuple[int, str], ...]:
        """Position among `given`, and the time seen, of each field that follows the forcing."""
        return tuple((i, at) for i, each in enumerate(self.given) for at in each.at)

    @property
    def geometry(self) -> Geometry:
        """How this grid continues beyond its edges."""
        beyond, rows = self.grid.continuation, self.grid.latitude[:, 0]
        poles = {beyond.north, beyond.south} & {"point", "across"}
        if len(poles) > 1:
            raise ConfigError(
                f"The rows from {rows[0]} to {rows[-1]} degrees north lie on one "
                "pole but stop half a row short of the other. Choose a grid that treats both alike."
            )
        return Geometry(
            *self.grid.shape,
            periodic=beyond.wraps,
            north_pole=beyond.north in poles,
            south_pole=beyond.south in poles,
            pole_row="point" in poles,
            sign=self.sign,
            fold=beyond.shift if beyond.north in ("fold", "fold_row") else None,
            fold_row=beyond.north == "fold_row",
        )

    def to_dict(self) -> dict[str, Any]:
        """The spec as plain JSON, which `from_dict` reads."""
        content = {each.name: getattr(self, each.name) for each in dataclasses.fields(self)}
        content["grid"] = grid.to_dict(self.grid)
        content["given"] = [dataclasses.asdict(each) for each in self.given]
        del content["step"]
        if self.step.duration is None:
            return content | {"step_months": self.step.months}
        return content | {"step_seconds": self.step.duration.total_seconds()}

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> "Spec":
        """Raises CheckpointError where a key is missing or unknown."""
        unit = "step_months" if "step_months" in content else "step_seconds"
        known = {f.name for f in dataclasses.fields(cls)} - {"step"} | {unit}
        later: dict[str, Any] = {"noise": 0, "outputs": (), "given": (), "settings": {}}
        later |= {"start": "persistence"}
        given = {**later, **content}  # forecasters were written before there were these
        if "grid" not in given:  # and before there were kinds of grids
            rows, columns = (np.array(given.pop(name, ())) for name in ("latitude", "longitude"))
            given["grid"] = grid.to_dict(grid.LatLon(rows, columns))
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
        fields["grid"] = grid.from_dict(fields["grid"])
        fields["given"] = tuple(
            Given(**(each | {"at": tuple(each["at"])})) for each in fields["given"]
        )
        size = fields.pop(unit)
        months = unit == "step_months"
        step = Step(months=size) if months else Step(duration=timedelta(seconds=size))
        return cls(step=step, **fields)
