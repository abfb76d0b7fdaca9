"""Settings for a first run on a source: channels, periods, network and batch, by its size."""

from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any

import xarray as xr

from climlstm.advice import one_line
from climlstm.data.cube.chosen import channel_in
from climlstm.data.inspect import Inspection
from climlstm.data.sources.times import step_of
from climlstm.errors import DataError
from climlstm.steps import Step, Times, time_text

RUN_FILE = "run.yaml"

FEWEST = 10
"""Fewest time steps of which a training, a validation and a test period can be made."""

MOST_CHANNELS = 8

LIKED = (
    *("msl", "t2m", "u10", "v10", "sst", "z500", "t850", "u850", "v850", "q700", "z200"),
    *("tp", "tcwv", "sp", "d2m"),
)
"""Channels that are taken first, where a source has more than `MOST_CHANNELS`."""

LIKED_LEVELS = (500.0, 850.0, 250.0)

MOSTLY_MISSING = 0.95
"""Share of missing values from which a variable is left out."""

COARSE_FROM = 20_000
"""Steps, shorter than `COARSE`, from which a run takes every n-th: two years of hours and more."""

COARSE = Step(timedelta(hours=6))

SIZES = ((200, 8, 0, 1, 1), (1000, 16, 1, 2, 2), (10_000, 32, 2, 3, 3), (None, 64, 2, 2, 4))
"""Steps of training below which a row holds; hidden channels, blocks, history, horizon.

Eleven years of days gave the third row (benchmarks/real_weather.py), the simulated atmosphere of
the demo the last one.
"""

FINE = 2**17
"""Cells from which squares of cells are seen as one point by the network."""

STEPS_IN_TRAINING = 2500
"""Optimiser steps that a first run aims at."""

SIGHT = ((timedelta(hours=1), timedelta(hours=12)), (timedelta(hours=23), timedelta(days=5)))
"""Longest step, and the lead time up to which forecasts with such a step go; ten steps beyond."""

INITIALISATIONS = 60
"""Forecasts of the test period, about."""


@dataclass(frozen=True)
class Proposal:
    """Settings of a first run: data, network, training and forecasts."""

    state: tuple[str, ...]
    static: tuple[str, ...]
    forcing: tuple[str, ...]
    left_out: tuple[str, ...]
    """Further channels that the source could give."""
    step: Step
    periods: dict[str, tuple[str, str]]
    batches: int
    """Batches in an epoch."""
    history: int
    horizon: int
    hidden: int
    blocks: int
    patch: int
    batch_size: int
    epochs: int
    forecast_steps: int
    every: Step

    @property
    def options(self) -> dict[str, Any]:
        """Options of the network."""
        patch = {"patch": self.patch} if self.patch > 1 else {}
        return {"hidden": [self.hidden], "blocks": self.blocks} | patch


def propose(
    found: Inspection,
    source: xr.Dataset,
    times: Times,
    shape: tuple[int, int],
    *,
    memory: int,
    on_earth: bool,
) -> Proposal:
    """Settings for a source of so many times on (H, W) cells.

    memory: bytes that a batch may take. on_earth: whether cells have a place.
    Raises DataError where there are too few times, or no channel.
    """
    if times.size < FEWEST:
        raise DataError(
            f"{found.name} has too few times for a training, a validation and a test period, "
            f"which take {FEWEST} at least: {found.times}. Name more files, as a pattern such as "
            "'era5_*.nc'."
        )
    state, static, left_out = choose_channels(found, source)
    native = step_of(times)
    every_nth = 1
    if native.duration is not None and native.duration < timedelta(hours=6):
        every_nth = timedelta(hours=6) // native.duration if times.size >= COARSE_FROM else 1
    step = native * every_nth
    number = times.size // every_nth
    hidden, blocks, history, horizon = next(
        row[1:] for row in SIZES if row[0] is None or number < row[0]
    )
    held_back = max(number // 10, history + horizon)
    training_steps = number - 2 * held_back
    patch = _patch(shape)
    cells = shape[0] * shape[1] // patch**2
    windows = max(training_steps - history - horizon + 1, 1)
    batch = min(16, max(windows // 4, 1))
    while hidden > 4 and memory < _bytes(1, hidden, blocks, history + horizon, cells):
        hidden //= 2
    while batch > 1 and memory < _bytes(batch, hidden, blocks, history + horizon, cells):
        batch //= 2
    epochs = STEPS_IN_TRAINING * batch // windows
    return Proposal(
        state=state,
        static=static,
        forcing=_forcing(step, on_earth=on_earth),
        left_out=left_out,
        step=step,
        periods=choose_periods(times, native, held_back * every_nth),
        batches=-(-windows // batch),
        history=history,
        horizon=horizon,
        hidden=hidden,
        blocks=blocks,
        patch=patch,
        batch_size=batch,
        epochs=min(max(epochs, 5), 40),
        forecast_steps=min(_sight(step), max(held_back // 2, 1)),
        every=step * -(-held_back // INITIALISATIONS),
    )


def choose_channels(
    found: Inspection, source: xr.Dataset
) -> tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]]:
    """State, static fields, and what else could be had.

    Derived channels are left out, and what is missing nearly everywhere. Raises DataError where no
    state is left.
    """
    empty = {v.name for v in found.variables if (v.missing or 0) > MOSTLY_MISSING}
    all_of_them = {label: channel_in(source, label) for label in found.channels}
    read = {
        label: each
        for label, each in all_of_them.items()
        if found.channels[label] not in empty and each.variable.derive is None
    }
    static = tuple(label for label, each in read.items() if each.variable.static)
    varying = [label for label in read if label not in static]

    def rank(label: str) -> tuple[int, float, int]:
        liked = LIKED.index(label) if label in LIKED else len(LIKED)
        level = read[label].level
        near = min((abs(level - wanted) for wanted in LIKED_LEVELS), default=0) if level else 0
        return liked, near, varying.index(label)

    ranked = sorted(varying, key=rank)
    state = tuple(label for label in varying if label in ranked[:MOST_CHANNELS])
    if not state:
        told = " ".join(found.problems) or "It has no variable along time, rows and columns."
        raise DataError(f"{found.name} gives no channel that could be forecast. {told}")
    return state, static, tuple(ranked[MOST_CHANNELS:])


def choose_periods(times: Times, native: Step, held_back: int) -> dict[str, tuple[str, str]]:
    """First and last date of the periods: the last steps test, as many before them validate."""
    edges = [0, times.size - 2 * held_back, times.size - held_back]
    days = native.duration is None or native.duration >= timedelta(days=1)
    days = days or held_back * native.duration >= timedelta(days=20)  # type: ignore[operator]
    starts = [_date(times[edge]) if days else _moment(times[edge]) for edge in edges]
    if days and native.duration is None:
        starts = [f"{start[:7]}-01" for start in starts]
    last = _date(times[-1]) if days else _moment(times[-1])
    if days:
        ends = [_day_before(start) for start in starts[1:]]
    else:
        ends = [_moment(times[edge - 1]) for edge in edges[1:]]
    names = ("train", "valid", "test")
    return dict(zip(names, zip(starts, [*ends, last], strict=True), strict=True))


def _date(time: Any) -> str:
    """Date of a time; of a 30 February, as some calendars have it, the nearest that all have."""
    text = time_text(time)[:10]
    try:
        return str(date.fromisoformat(text))
    except ValueError:
        return f"{text[:8]}28"


def _moment(time: Any) -> str:
    return time_text(time).replace(" ", "T")


def _day_before(day: str) -> str:
    return str(date.fromisoformat(day) - timedelta(days=1))


def _forcing(step: Step, *, on_earth: bool) -> tuple[str, ...]:
    """Inputs that follow from time and place: the sun's height, where the day is resolved."""
    if not on_earth:
        return ()
    of_the_day = step.duration is not None and step.duration < timedelta(days=1)
    yearly = step.duration is None and step.months % 12 == 0
    return ("cos_zenith", "season") if of_the_day else () if yearly else ("season",)


def _patch(shape: tuple[int, int]) -> int:
    """The smallest patch with which the network sees no more than `FINE` points."""
    fitting = [p for p in (1, 2, 4, 8) if shape[0] % p == 0 and shape[1] % p == 0]
    return next((p for p in fitting if shape[0] * shape[1] <= FINE * p**2), fitting[-1])


def _bytes(batch: int, hidden: int, blocks: int, steps: int, cells: int) -> int:
    """Memory of a training step of `convlstm` in float32, measured: 16 fields of each hidden
    channel and step, and 8 more for each pair of residual blocks."""
    return 4 * batch * hidden * cells * (steps - 1) * (16 + 8 * blocks)


def _sight(step: Step) -> int:
    """Lead steps of a forecast."""
    if step.duration is None:
        return 12
    for longest, lead in SIGHT:
        if step.duration <= longest:
            return max(lead // step.duration, 1)
    return 10


def run_text(
    proposal: Proposal, catalog: str, source: str, *, times: str, parameters: int, note: str
) -> str:
    """The run file of a proposal, with comments.

    times: of the source, in words. parameters: of the network. note: how long training takes.
    """
    chosen = proposal
    further = f"  # further channels here: {', '.join(chosen.left_out)}\n" * bool(chosen.left_out)
    static = f"  static: {one_line(list(chosen.static))}\n" * bool(chosen.static)
    forcing = f"  forcing: {one_line(list(chosen.forcing))}\n" * bool(chosen.forcing)
    spans = "".join(
        f"    {name}: [{start}, {stop}]\n" for name, (start, stop) in chosen.periods.items()
    )
    return f"""\
# yaml-language-server: $schema=run.schema.json
# A run of climlstm. Next: climlstm check {RUN_FILE}; climlstm train {RUN_FILE}
# For editors that complete keys: climlstm schema --out run.schema.json
name: {source}

data:
  catalog: {one_line(catalog)}
  source: {source}
  # What is forecast: all of it goes into the network, and comes out of it a step later.
  state: {one_line(list(chosen.state))}
{further}{forcing}{static}\
  step: {chosen.step}  # the source: {times}
  # Scores are of the test period alone; the validation period chooses the best weights.
  periods:
{spans}
model:
  history: {chosen.history}  # known steps before a forecast
  options: {one_line(chosen.options)}  # {parameters:,} parameters

training:
  horizon: {chosen.horizon}  # lead steps that are trained on; forecasts go on beyond them
  batch_size: {chosen.batch_size}
  epochs: {chosen.epochs}  # {note}

forecast:
  steps: {chosen.forecast_steps}
  every: {chosen.every}  # between starts of forecasts in the test period
"""
