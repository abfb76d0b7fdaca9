"""Where windows begin: positions on the time axis from which all steps of a window follow."""

from collections.abc import Iterable
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from climlstm.calendars import Times, time_text, within
from climlstm.errors import DataError
from climlstm.steps import Step

Starts = NDArray[np.int64]
"""Positions on the time axis of a cube at which windows begin."""

MINUTES = "%Y-%m-%d %H:%M"


def valid_starts(times: Times, *, length: int, step: Step, unusable: Iterable[Any] = ()) -> Starts:
    """Positions from which `length` times follow one another by `step`, all of them usable.

    times: strictly increasing.
    unusable: times that no window may contain.
    """
    if length < 1:
        raise ValueError(f"a window has at least one step, not {length}")
    if times.size < length:
        return np.empty(0, dtype="int64")
    refused = np.isin(times, np.array(list(unusable), dtype=times.dtype))
    broken = np.diff(step.number(times)) != 1
    breaks = np.concatenate([[0], np.cumsum(broken)])  # gaps before each time
    refusals = np.concatenate([[0], np.cumsum(refused)])  # refused times before each one
    first = np.arange(times.size - length + 1)
    whole = breaks[first + length - 1] == breaks[first]
    clean = refusals[first + length] == refusals[first]
    return first[whole & clean]


def plan_windows(
    times: Times,
    *,
    period: tuple[pd.Timestamp, pd.Timestamp],
    history: int,
    horizon: int,
    step: Step,
    unusable: Iterable[Any] = (),
) -> Starts:
    """Where the windows of a period begin; none crosses a gap or the period's edge.

    times: those of the cube, strictly increasing.
    period: first and last moment, both included.
    Raises DataError where the period holds no window.
    """
    inside, unusable = within(times, period), list(unusable)
    position = np.flatnonzero(inside)
    starts = valid_starts(times[inside], length=history + horizon, step=step, unusable=unusable)
    if starts.size == 0:
        lacking = int(np.isin(times[inside], np.array(unusable, dtype=times.dtype)).sum())
        lack, advice = "", "Change the period, or shorten history or horizon."
        if lacking:
            lack = f", {lacking} of them ({lacking / position.size:.0%}) without all values"
            advice = "Complete the source, leave out what lacks values, or choose another period."
        raise DataError(
            f"The period {period[0]:{MINUTES}} to {period[1]:{MINUTES}} holds no window of "
            f"{history} + {horizon} steps of {step}: of the {times.size} times from "
            f"{time_text(times[0])} to {time_text(times[-1])}, {position.size} lie in it"
            f"{lack}. {advice}"
        )
    return position[starts]


def evenly_spaced(starts: Starts, number: int) -> Starts:
    """At most `number` of the starts, in order of time, as evenly spaced as they can be."""
    if number >= starts.size:
        return starts
    return starts[np.linspace(0, starts.size - 1, number).round().astype("int64")]
