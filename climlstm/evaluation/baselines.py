"""Forecasts without a network, which every network has to beat; each is a plugin."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Protocol

import numpy as np
import xarray as xr
from numpy.typing import NDArray
from pydantic import Field

from climlstm.data.statistics.analogues import fit_analogues
from climlstm.data.statistics.linear import fit_damping, fit_linear
from climlstm.errors import DataError, PluginError
from climlstm.grid import Grid, field_dims, grid_of
from climlstm.plugins import TrainingPeriod
from climlstm.plugins.running import running
from climlstm.steps import Leads, Step

BASELINES = ("persistence", "climatology")
"""Baselines that need no fit, and stand in all scores unless others are chosen."""

SAME_GRID_DEG = 1e-3
"""Distance in degrees within which cells of the fit and of a forecast are the same."""


@dataclass(frozen=True)
class Persistence:
    """The state at the start, unchanged; or its anomaly, added to the climatology."""

    history: ClassVar[int] = 1

    anomaly: bool = False
    """Whether the anomaly persists instead of the state, as is usual for months."""

    @property
    def needs(self) -> tuple[str, ...]:
        return ("climatology", "past_climatology") if self.anomaly else ()

    def forecast(
        self,
        past: xr.Dataset,
        lead_time: Leads,
        *,
        climatology: xr.Dataset | None = None,
        past_climatology: xr.Dataset | None = None,
    ) -> xr.Dataset:
        """The start, or its anomaly, at each lead time."""
        if climatology is None or past_climatology is None:
            last = np.full(lead_time.size, past.sizes["lead_time"] - 1)
            return past.isel(lead_time=last).assign_coords(lead_time=lead_time)
        return climatology + _start(past) - _start(past_climatology)


@dataclass(frozen=True)
class Climatology:
    """The climatology of the valid time."""

    history: ClassVar[int] = 0
    needs: ClassVar[tuple[str, ...]] = ("climatology",)

    def forecast(
        self, past: xr.Dataset, lead_time: Leads, *, climatology: xr.Dataset
    ) -> xr.Dataset:
        """The climatology at each lead time."""
        return climatology


@dataclass(frozen=True)
class _Fitted:
    """A baseline that is fitted to the training period first."""

    history: ClassVar[int] = 1

    def forecast(self, past: xr.Dataset, lead_time: Leads) -> xr.Dataset:
        """Raises DataError: only what `fit` returns can forecast."""
        raise DataError(
            f"The baseline '{type(self).__name__.lower()}' is fitted to the training period of a "
            "run, which these forecasts do not have. Leave it out, or pass what its fit(training) "
            "returns."
        )


@dataclass(frozen=True)
class Damped(_Fitted):
    """Damped persistence: the anomaly times a slope that was fitted for each cell and lead time."""

    def fit(self, training: TrainingPeriod) -> "Propagated":
        """Slopes for all leads that will be forecast."""
        model = fit_damping(
            training.cube, training.climatology, step=training.step, steps=training.leads
        )
        return Propagated.of(training, model)


@dataclass(frozen=True)
class Linear(_Fitted):
    """Linear inverse model: the leading EOFs of all channels, carried forward by one matrix."""

    eofs: Annotated[int, Field(ge=1)] = 20
    """Number of EOFs."""

    def fit(self, training: TrainingPeriod) -> "Propagated":
        """EOFs and propagator."""
        model = fit_linear(
            training.cube,
            training.climatology,
            step=training.step,
            eofs=self.eofs,
            cache=training.cache,
        )
        return Propagated.of(training, model)


@dataclass(frozen=True)
class Analogue(_Fitted):
    """The mean of what followed the states of the training period most like the start."""

    eofs: Annotated[int, Field(ge=1)] = 20
    """Number of EOFs in which states are compared."""
    neighbours: Annotated[int, Field(ge=1)] = 30
    """Number of states."""

    def fit(self, training: TrainingPeriod) -> "Propagated":
        """EOFs and the states of the training period."""
        model = fit_analogues(
            training.cube,
            training.climatology,
            step=training.step,
            eofs=self.eofs,
            neighbours=self.neighbours,
            cache=training.cache,
        )
        return Propagated.of(training, model)


class Propagator(Protocol):
    """A model of anomalies, such as `LinearModel`."""

    def propagate(
        self, anomaly: NDArray[np.floating], steps: Sequence[int]
    ) -> NDArray[np.floating]:
        """Anomalies (L, C, H, W) a number of steps after the anomaly (C, H, W)."""
        ...


@dataclass(frozen=True, eq=False)
class Propagated:
    """Forecasts of a model that carries anomalies forward."""

    history: ClassVar[int] = 1
    needs: ClassVar[tuple[str, ...]] = ("climatology", "past_climatology")

    model: Propagator
    channels: tuple[str, ...]
    """Channels of the model, in its order."""
    grid: Grid
    step: Step

    @classmethod
    def of(cls, training: TrainingPeriod, model: Propagator) -> "Propagated":
        """The forecasts of a model that was fitted to a training period."""
        cube = training.cube
        channels = tuple(map(str, cube.data_vars))
        return cls(model, channels, grid_of(cube), training.step)

    def forecast(
        self,
        past: xr.Dataset,
        lead_time: Leads,
        *,
        climatology: xr.Dataset,
        past_climatology: xr.Dataset,
    ) -> xr.Dataset:
        """Climatology plus the anomaly that the model carries forward.

        Raises DataError where channels, grid or steps are not those of the fit.
        """
        self._check(past)
        start, normal = _start(past), _start(past_climatology)
        anomaly = np.stack([start[n].values - normal[n].values for n in self.channels])
        steps = self.step.counts(lead_time).tolist()
        carried = self.model.propagate(np.nan_to_num(anomaly), steps)
        fields = {
            name: climatology[name] + carried[:, number].astype("float32")
            for number, name in enumerate(self.channels)
        }
        return xr.Dataset(fields)[list(past.data_vars)]

    def _check(self, past: xr.Dataset) -> None:
        missing = [channel for channel in self.channels if channel not in past]
        if missing:
            raise DataError(
                f"A baseline forecasts {', '.join(self.channels)} together, but the forecasts have "
                f"no {', '.join(missing)}. Leave the baseline out."
            )
        if not grid_of(past).is_close(self.grid):
            raise DataError(
                f"A baseline was fitted on {self.grid}, but the forecasts have {grid_of(past)}. "
                "Leave the baseline out, or score the whole grid."
            )


def forecast_of(
    name: str,
    baseline: Any,
    past: xr.Dataset,
    forecast: xr.Dataset,
    offered: Mapping[str, xr.Dataset | None],
) -> xr.Dataset:
    """The forecast of a baseline beside another one, with its channels, lead times and grid.

    offered: what the baseline may need, by name. Raises PluginError where it gives anything else.
    """
    needs = {need: offered[need] for need in getattr(baseline, "needs", ())}
    with running("baselines", name, baseline, "in forecast()"):
        made = baseline.forecast(past, forecast["lead_time"].values, **needs)
    dims = ("lead_time", *field_dims(forecast))
    wanted = {str(channel): tuple(forecast.sizes[dim] for dim in dims) for channel in forecast}
    found = {str(channel): tuple(made[channel].transpose(*dims).shape) for channel in made}
    if any(found.get(channel) != shape for channel, shape in wanted.items()):
        raise PluginError(
            f"The baseline '{name}' gave {found or 'nothing'} instead of {wanted} (lead_time, "
            "latitude, longitude)."
        )
    return made[list(wanted)].transpose(*dims)


def _start(past: xr.Dataset) -> xr.Dataset:
    return past.isel(lead_time=-1, drop=True)


def ready(baseline: Any, training: Callable[[], TrainingPeriod]) -> Any:
    """The baseline that makes forecasts: what its `fit` returns, where it has one."""
    return baseline.fit(training()) if hasattr(baseline, "fit") else baseline
