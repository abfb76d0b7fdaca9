"""The types that plugins are made of: variables, styles, losses, evaluators and others."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol, runtime_checkable

if TYPE_CHECKING:
    from pathlib import Path

    import pandas as pd
    import xarray as xr

    from climlstm.steps import Step

API_VERSION = 1
"""Version of this contract. A plugin may state the one it was written for as `api_version`."""


@dataclass(frozen=True)
class Style:
    """How people like to see a variable: display unit, colour map, colour limits in that unit.

    >>> import climlstm
    >>> climlstm.Style(units="hPa", colormap="viridis", limits=(980, 1040)).units
    'hPa'
    """

    units: str | None = None
    """Display unit (pint spelling); the variable's own where None."""
    colormap: str = "viridis"
    limits: tuple[float, float] | None = None
    contour_interval: float | None = None
    """Spacing of contour lines, in the display unit, where the variable is drawn as lines."""


@dataclass(frozen=True)
class Variable:
    """A physical quantity as climlstm names and keeps it.

    A variable on levels gives one channel a level: `z` at 500 hPa is the channel `z500`.

    >>> import climlstm
    >>> import numpy as np
    >>> speed = climlstm.Variable(
    ...     name="ws10",
    ...     long_name="10 m wind speed",
    ...     units="m s-1",
    ...     inputs=("u10", "v10"),
    ...     derive=lambda ds: np.hypot(ds["u10"], ds["v10"]),
    ... )
    >>> float(speed.derive({"u10": 3.0, "v10": 4.0}))
    5.0
    """

    name: str
    long_name: str
    units: str
    standard_name: str | None = None
    era5_name: str | None = None
    """Name in ERA5 and WeatherBench stores, such as `2m_temperature`."""
    aliases: tuple[str, ...] = ()
    """Other names under which files carry it."""
    on_levels: bool = False
    """Whether it needs a pressure level (hPa)."""
    static: bool = False
    """Whether it never changes (orography, land mask)."""
    component: Literal["eastward", "northward"] | None = None
    """Direction of a vector component, which changes sign where a row continues across a pole."""
    inputs: tuple[str, ...] = ()
    """Variables (short names, at the same level) that `derive` needs; empty if read from files."""
    derive: Callable[[xr.Dataset], xr.DataArray] | None = None
    """Dataset of the inputs, in our units, to this variable in `units`; lazy in, lazy out."""
    style: Style = field(default_factory=Style)
    transform: Transform | None = None
    """Transform of the values that a network learns, unless the run file names another one."""
    minimum: float | None = None
    """Least possible value, in `units`, below which no forecast goes."""
    maximum: float | None = None
    """Greatest possible value, in `units`."""
    api_version: int = API_VERSION


@runtime_checkable
class Transform(Protocol):
    """Increasing function of a channel's values. A frozen dataclass, whose fields are its options.

    >>> import climlstm
    >>> import torch
    >>> from dataclasses import dataclass
    >>> @dataclass(frozen=True)
    ... class Asinh:
    ...     scale: float = 1.0
    ...
    ...     def forward(self, values):
    ...         return torch.asinh(values / self.scale)
    ...
    ...     def inverse(self, values):
    ...         return torch.sinh(values) * self.scale
    >>> isinstance(Asinh(), climlstm.plugins.Transform)
    True
    """

    def forward(self, values: Any) -> Any:
        """Tensor of any shape, in the channel's units, to what is normalised; NaN stays NaN."""

    def inverse(self, values: Any) -> Any:
        """Results of `forward`, back to the channel's units."""


@runtime_checkable
class Loss(Protocol):
    """Scalar to be minimised. A frozen dataclass, whose fields are its options in the run file.

    >>> import climlstm
    >>> from dataclasses import dataclass
    >>> @dataclass(frozen=True)
    ... class Quartic:
    ...     power: int = 4
    ...
    ...     def __call__(self, prediction, target, *, weight, channels):
    ...         return (weight * (prediction - target) ** self.power).mean()
    >>> isinstance(Quartic(), climlstm.Loss)
    True
    """

    def __call__(self, prediction: Any, target: Any, *, weight: Any, channels: Any) -> Any:
        """prediction, target: (B, L, C, H, W), normalised; weight: (C, H, W) with mean 1."""


NEEDS = ("weight", "climatology", "past")
"""Inputs that an evaluator can ask for besides forecast and truth."""


@runtime_checkable
class Evaluator(Protocol):
    """Scores one forecast at a time into a tidy table, and sums up at the end.

    Most scores are means of a statistic of each cell: `climlstm.evaluation.statistic.GridScore`
    makes an evaluator of that statistic alone.
    It may declare `needs: ClassVar[tuple[str, ...]]`, of "weight" (region, latitude, longitude; sum
    1), "climatology" (like truth) and "past" (the truth of the day up to init_time, as lead times
    up to zero): they arrive as keywords of `score`. With a method
    `compare(scores, reference)` it is also asked how a forecast does against each baseline, with
    `write(scores, folder)`, which returns paths, for files beside the tables, and with
    `figures(scores)`, of all models (column `model`), for figures of matplotlib by title.
    With `streams: ClassVar[bool] = True` its `score` gets a forecast that is lazy, at all lead
    times whether there is truth or not, and the truth at all of its times (time, …), lazy too: for
    rollouts of years, which it reads piece by piece. Baselines are not scored by it.

    >>> import climlstm
    >>> from dataclasses import dataclass
    >>> from typing import ClassVar
    >>> @dataclass(frozen=True)
    ... class LargestError:
    ...     requires: ClassVar[tuple[str, ...]] = ()
    ...
    ...     def score(self, forecast, truth):
    ...         error = abs(forecast - truth).max(["latitude", "longitude"])
    ...         return error.to_array("variable").to_series().rename("value").reset_index()
    ...
    ...     def summarise(self, scores):
    ...         table = scores.groupby(["variable", "lead_time"], as_index=False)["value"].max()
    ...         return table.assign(metric="largest_error")
    >>> isinstance(LargestError(), climlstm.Evaluator)
    True
    """

    requires: ClassVar[tuple[str, ...]]
    """Channels without which it cannot work; empty: whatever the forecast has."""

    def score(self, forecast: xr.Dataset, truth: xr.Dataset) -> pd.DataFrame:
        """One `init_time`; both (lead_time, latitude, longitude); means, no roots or ratios."""

    def summarise(self, scores: pd.DataFrame) -> pd.DataFrame:
        """All initialisations together; roots and ratios are taken here."""


BASELINE_NEEDS = ("climatology", "past_climatology")
"""Inputs that a baseline can ask for besides the past."""


@dataclass(frozen=True, eq=False)
class TrainingPeriod:
    """The data of a run that a baseline may be fitted to."""

    cube: xr.Dataset
    """Channels (time, latitude, longitude), lazy, at the usable steps of the training period."""
    climatology: xr.Dataset
    """Climatology of that period, as `data.statistics.climatology` makes it."""
    step: Step
    leads: int
    """Number of steps that will be forecast."""
    cache: Path | None = None
    """Folder for what takes long to fit; None: nothing is kept."""


@runtime_checkable
class Baseline(Protocol):
    """Forecasts without a network, scored beside it. A frozen dataclass; its fields are options.

    It may declare `needs: ClassVar[tuple[str, ...]]`, of "climatology" (of the valid times) and
    "past_climatology" (of the times of `past`): they arrive as keywords of `forecast`. With a
    method `fit(training: TrainingPeriod)` it is fitted first; what that returns forecasts.

    >>> import climlstm
    >>> from dataclasses import dataclass
    >>> from typing import ClassVar
    >>> @dataclass(frozen=True)
    ... class Halved:
    ...     history: ClassVar[int] = 1
    ...
    ...     def forecast(self, past, lead_time):
    ...         return (past.isel(lead_time=-1, drop=True) / 2).expand_dims(lead_time=lead_time)
    >>> isinstance(Halved(), climlstm.Baseline)
    True
    """

    history: ClassVar[int]
    """Known steps, the start included, that `forecast` is given; 0: none."""

    def forecast(self, past: xr.Dataset, lead_time: Any) -> xr.Dataset:
        """Fields (lead_time, latitude, longitude) of one initialisation, with the channels of past.

        past: the truth (lead_time, latitude, longitude) up to the start, whose lead_time is 0.
        lead_time: those that are wanted, in order.
        """
