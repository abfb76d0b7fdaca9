"""Advection as a baseline beside persistence: entry points of `climlstm.baselines`.

A network has to beat S-PROG, not persistence: a forecast that moves, and lets go of the scales that
cannot be foreseen.
"""

import contextlib
import importlib
import io
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
import xarray as xr

from climlstm.errors import DataError, MissingExtraError
from climlstm.evaluation.bootstrap import Real
from climlstm_nowcast.advection import carry, decibel, motion
from climlstm_nowcast.variables import RAIN_RATE

FRAMES = 3
"""Frames that motion is found from, the start included."""


@dataclass(frozen=True)
class Advection:
    """Rain carried along the motion of the last three frames (`advection`).

    Other channels are carried along the same motion.
    """

    history: ClassVar[int] = FRAMES

    channel: str = RAIN_RATE.name
    """The channel whose motion is found, a rain rate in mm/h."""
    edges: Literal["dry", "rim"] = "dry"
    """Air that comes in over the rim is dry, or like the rim. Unknown cells count as dry."""

    def forecast(self, past: xr.Dataset, lead_time: Any) -> xr.Dataset:
        """Fields at each lead time.

        Raises DataError where the channel is not forecast, or lead times are not of its steps.
        """
        frames, steps = _frames(past, self.channel), _steps(past, lead_time)
        flow = motion(decibel(frames))
        outside = 0.0 if self.edges == "dry" else None
        last = past.isel(lead_time=-1, drop=True)
        carried = {}
        for name, field in last.items():
            values = carry(
                np.nan_to_num(field.values.astype("float64")), flow, steps, outside=outside
            )
            carried[name] = _like(field, values)
        return last.assign(carried).assign_coords(lead_time=lead_time)


@dataclass(frozen=True)
class PySTEPS:
    """A deterministic nowcast of pysteps (Pulkkinen et al. 2019, Geosci. Model Dev. 12, 4185-4219).

    Motion by its Lucas-Kanade. Needs `pip install 'climlstm-nowcast[pysteps]'`.
    """

    history: ClassVar[int] = FRAMES

    method: Literal["extrapolation", "sprog"] = "sprog"
    """Extrapolation along the motion; or S-PROG, which also lets go of scales as they are lost."""
    channel: str = RAIN_RATE.name
    """The channel that is forecast, a rain rate in mm/h; others persist."""
    edges: Literal["dry", "unknown"] = "dry"
    """Whether cells that air from outside has reached are dry, or missing."""

    def forecast(self, past: xr.Dataset, lead_time: Any) -> xr.Dataset:
        """Fields at each lead time.

        Raises MissingExtraError without pysteps.
        """
        frames, steps = decibel(_frames(past, self.channel)), _steps(past, lead_time)
        with contextlib.redirect_stdout(io.StringIO()):  # it prints tables
            try:
                flows, nowcasts = (
                    importlib.import_module(f"pysteps.{part}") for part in ("motion", "nowcasts")
                )
            except ImportError as error:
                raise MissingExtraError(
                    "The baseline 'pysteps' needs the package 'pysteps'. Install it with: "
                    "pip install 'climlstm-nowcast[pysteps]'"
                ) from error
            flow = flows.get_method("LK")(frames)
            number = max(steps)
            given = frames if self.method == "sprog" else frames[-1]
            options = {"precip_thr": -10.0} if self.method == "sprog" else {}
            made = nowcasts.get_method(self.method)(given, flow, number, **options)
        wet = made >= -10.0
        rates = np.where(wet, 10 ** (np.where(wet, made, 0.0) / 10), 0.0)
        if self.edges == "unknown":
            rates[np.isnan(made)] = np.nan
        last = past.isel(lead_time=-1, drop=True)
        chosen = rates[np.asarray(steps) - 1]
        still = {n: _like(f, np.broadcast_to(f.values, chosen.shape)) for n, f in last.items()}
        still[self.channel] = _like(last[self.channel], chosen)
        return last.assign(still).assign_coords(lead_time=lead_time)


def _frames(past: xr.Dataset, channel: str) -> Real:
    """The last frames (T, H, W) of the channel that moves."""
    if channel not in past:
        raise DataError(
            f"Advection moves with the channel '{channel}', but the forecast has "
            f"{', '.join(map(str, past.data_vars))}. Name one with the option 'channel'."
        )
    return np.asarray(past[channel].values[-FRAMES:], dtype="float64")


def _steps(past: xr.Dataset, lead_time: Any) -> list[int]:
    """Lead times as numbers of steps of the frames."""
    spacing = past.lead_time.values[-1] - past.lead_time.values[-2]
    steps = np.asarray(lead_time) / spacing
    if not np.allclose(steps, np.round(steps)):
        raise DataError(
            f"Frames are {spacing} apart, and lead times are no multiples of that: {lead_time}."
        )
    return [int(step) for step in np.round(steps)]


def _like(field: xr.DataArray, values: Real) -> xr.DataArray:
    return xr.DataArray(
        values.astype(field.dtype), dims=("lead_time", *field.dims), attrs=field.attrs
    )
