"""The audit: what could make a run wrong, worse or slower, before it starts.

Rules stand by subject: leaks.py (periods, and which times went into what), plausibility.py (values)
and chunking.py (cost of reading). Here they are asked, on a few steps read for the purpose.
"""

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import NDArray

from climlstm import html
from climlstm.audit import chunking, leaks, plausibility, sums
from climlstm.audit.findings import Finding, errors_of, findings_table
from climlstm.audit.sampling import bytes_decoded, read_steps, sample_positions
from climlstm.calendars import Times, are_times, civil, clock, within
from climlstm.config import Config
from climlstm.data.cube.cube import CubePlan
from climlstm.data.cube.forcing import CHANNELS, forcing_channels, forcing_fields
from climlstm.data.sources.axes import find_axes
from climlstm.data.sources.times import coordinate_bytes, full_steps
from climlstm.data.statistics.statistics import Period, Statistics
from climlstm.data.windows.starts import plan_windows
from climlstm.errors import ClimLSTMError, DataError
from climlstm.grid import grid_of


@dataclass(frozen=True)
class Audit:
    """Findings about a run, and a digest of the data that they concern."""

    findings: tuple[Finding, ...]
    digest: str | None = None
    """SHA-256 of times, grid, names and units of the channels, and of the values sampled; None
    where no cube could be built."""
    steps_read: int = 0
    bytes_read: int = 0
    """Decoded bytes of the chunks that the sample touched."""

    @property
    def errors(self) -> tuple[Finding, ...]:
        """Findings that must be put right before the run can start."""
        return errors_of(self.findings)

    @property
    def passed(self) -> bool:
        """Whether nothing is wrong; there may be warnings."""
        return not self.errors

    def having(self, findings: Iterable[Finding]) -> "Audit":
        """The audit with further findings."""
        return replace(self, findings=(*self.findings, *findings))

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {
            "passed": self.passed,
            "digest": self.digest,
            "steps_read": self.steps_read,
            "bytes_read": self.bytes_read,
            "findings": [finding.to_dict() for finding in self.findings],
        }

    def _repr_html_(self) -> str:
        """The verdict and what was found, for notebooks."""
        verdict = "passed" if self.passed else "failed"
        said = (
            f"{len(self.errors)} errors, {len(self.findings)} findings; "
            f"{self.steps_read} steps read, data {(self.digest or 'unknown')[:12]}"
        )
        return html.fragment(
            f'<div><span class="name">audit</span> {html.badge(verdict, verdict)} {said}</div>',
            findings_table(self.findings),
        )

    def require(self, name: str) -> None:
        """Raises DataError, naming all errors, unless the audit of the run `name` passed."""
        if self.errors:
            raise DataError(
                f"The audit of '{name}' found {len(self.errors)} "
                f"error{'s' if len(self.errors) > 1 else ''}:\n"
                + "\n".join(f"- {finding}" for finding in self.errors)
            )


def audit(config: Config, plan: CubePlan, *, parameters: int | None = None) -> Audit:
    """Audit what a run file asks of a source, before anything is fitted.

    It reads SAMPLE_STEPS steps at most. What is fitted and cut later is audited by `check_task`.
    parameters: of the network, if known.
    """
    periods = config.data.periods.spans
    cube = plan.cube
    times = plan.times.values
    findings = [
        *leaks.check_periods(periods),
        *check_times(plan.axes.time.values, str(plan.axes.time.name)),
        *check_times(times, "time"),
        *chunking.check_steps(config, full_steps(plan.axes.time.values, config.data.step)),
        *chunking.check_left_out(plan.axes.time.values, times, config.data.step),
        *chunking.check_gaps(times, config.data.step),
        *chunking.check_coarsening(plan.cells.fine, plan.cells.coarsen),
        *leaks.check_forcings(
            config.data.forcing,
            times[:3],
            *plan.grid.places,
            observed=(*config.data.predicted, *config.data.prescribed),
        ),
        *_check_window_counts(config, times, periods),
    ]
    inside = [within(times, period) for period in periods.values()]
    wanted = np.flatnonzero(np.any(inside, axis=0))
    if wanted.size == 0:
        return Audit((*findings, _no_data(times, periods)))
    findings += chunking.check_chunks(plan, wanted)
    if parameters is not None:
        findings += chunking.check_length(
            int(within(times, periods["train"]).sum()) * config.data.step.days,
            plan.grid,
            channels=len(config.data.predicted),
            parameters=parameters,
        )
    positions = sample_positions(plan, wanted)
    sample = read_steps(cube, positions)
    findings += plausibility.check_values(plan, sample)
    findings += sums.check_sums(plan, config.data.step)
    findings += plausibility.check_repeats(
        sample, config.data.predicted, _known(config, cube, sample, positions)
    )
    return Audit(
        tuple(findings),
        digest=_digest(cube, sample),
        steps_read=positions.size,
        bytes_read=bytes_decoded(plan, positions),
    )


def check_source(config: Config, source: xr.Dataset, error: ClimLSTMError) -> Audit:
    """The audit of a source that no cube can be built of, for the reason given."""
    try:
        axes = find_axes(source)
        found = [
            *check_times(axes.time.values, str(axes.time.name)),
            *chunking.check_steps(config, np.unique(axes.time.values)),
        ]
    except ClimLSTMError:  # the same reason again
        found = []
    return Audit((*found, cannot_be_read(config, error)))


def cannot_be_read(config: Config, error: ClimLSTMError) -> Finding:
    """The finding that stands for an error of catalog, source or cube."""
    return Finding(
        "source-does-not-fit",
        "error",
        str(error).rstrip("."),
        f"source '{config.data.source}' of {config.data.catalog}",
        type(error).__name__,
        "Correct the source, its catalog or the keys under 'data', as the message says.",
    )


def check_task(
    config: Config,
    times: NDArray[np.datetime64],
    *,
    train: NDArray[np.int64],
    statistics: Statistics,
    valid: NDArray[np.int64] | None = None,
    climatology: Period | None = None,
) -> list[Finding]:
    """Findings about what a training fits and cuts: windows, statistics, masks, climatology.

    times: of the cube. train, valid: where its windows begin; a further source has no `valid`.
    climatology: the first and last moment that went into it.
    """
    periods = config.data.periods.spans
    length = config.model.history + config.training.horizon
    used = {
        name: times[np.unique((starts[:, None] + np.arange(length)).ravel())]
        for name, starts in (("train", train), ("valid", valid))
        if starts is not None
    }
    fits = {"statistics": statistics.train, "masks of missing cells": statistics.train}
    fits |= {} if climatology is None else {"climatology": climatology}
    findings = [
        *_check_changes(statistics),
        *leaks.check_windows(used, periods),
        *leaks.check_fits(fits, periods["train"]),
    ]
    if "valid" in used:
        chosen = (civil(used["valid"].min()), civil(used["valid"].max()))
        findings += leaks.check_choice(chosen, periods)
    return findings


def further(entry: str, found: Audit) -> list[Finding]:
    """Findings about a further source, of which the training period alone is used."""
    unused = {"data.periods.valid", "data.periods.test"}
    ours = [each for each in found.findings if not unused & {*each.where.split()}]
    return [replace(each, where=f"{each.where}, further source '{entry}'") for each in ours]


def _check_changes(statistics: Statistics) -> Iterator[Finding]:
    """Channels that stay as they are: errors count in units of their changes, which are zero."""
    still = ~(statistics.tendency_std > np.finfo("float32").eps * statistics.std)
    for number in np.flatnonzero(still):
        name = statistics.channels[number]
        yield Finding(
            "channel-without-change",
            "error",
            f"'{name}' does not change from step to step, so there is nothing to forecast",
            f"channel '{name}' in the training period",
            f"standard deviation {statistics.tendency_std[number]:.3g} of its changes",
            "Leave it out, use it as static, or repair the source.",
        )


def what_was_seen(
    times: NDArray[np.datetime64],
    length: int,
    *,
    train: NDArray[np.int64],
    valid: NDArray[np.int64],
    statistics: Period,
    climatology: Period,
    also: Sequence[tuple[Times, NDArray[np.int64]]] = (),
) -> dict[str, list[str]]:
    """First and last moment of all that went into a training, for its provenance.

    length: steps of a window; train, valid: where windows begin; also: times and training windows
    of further sources whose weather is that of the world.
    """
    every = {"train": (times, train), "valid": (times, valid)}
    every |= {f"{leaks.FURTHER}{number}": each for number, each in enumerate(also, start=2)}
    spans: dict[str, Period] = {
        name: (civil(when[starts.min()]), civil(when[starts.max() + length - 1]))
        for name, (when, starts) in every.items()
    }
    spans |= {"statistics": statistics, "climatology": climatology}
    return {name: [str(moment) for moment in span] for name, span in spans.items()}


def check_times(times: Times, name: str) -> Iterator[Finding]:
    """Times that come twice, out of order, or are no times."""
    if not are_times(times):
        return
    undefined = int(pd.isnull(times).sum())
    steps = np.diff(clock(times))
    zero = np.timedelta64(0)
    for rule, wrong, what in (
        ("times-duplicate", steps == zero, "Times come more than once"),
        ("times-unsorted", steps < zero, "Times are not in order"),
    ):
        if wrong.any():
            yield Finding(
                rule,
                "error",
                what,
                f"time axis '{name}' of the source",
                f"{int(wrong.sum())} times, the first {times[1:][wrong][0]}",
                "Sort the source and remove duplicates, such as files that overlap.",
            )
    if undefined:
        yield Finding(
            "times-undefined",
            "error",
            "Times are missing",
            f"time axis '{name}' of the source",
            f"{undefined} of {times.size}",
            "Repair the source.",
        )


def _check_window_counts(
    config: Config, times: NDArray[np.datetime64], periods: Mapping[str, Period]
) -> Iterator[Finding]:
    """Periods without a window, and fewer windows than a batch."""
    for name, horizon in (
        ("train", config.training.horizon),
        ("valid", config.training.horizon),
        ("test", 1),
    ):
        try:
            starts = plan_windows(
                times,
                period=periods[name],
                history=config.model.history,
                horizon=horizon,
                step=config.data.step,
            )
        except DataError as error:
            yield Finding(
                "period-without-windows",
                "warning" if name == "test" else "error",
                str(error).partition(". ")[0],
                f"data.periods.{name}",
                "0 windows",
                "Change the period, or shorten model.history or training.horizon.",
            )
            continue
        if name == "train" and starts.size < config.training.batch_size:
            yield Finding(
                "fewer-windows-than-a-batch",
                "error",
                f"There are {starts.size} training windows, fewer than one batch of "
                f"{config.training.batch_size}",
                "data.periods.train",
                f"{starts.size} windows",
                "Lengthen the training period, or reduce training.batch_size.",
            )


def _no_data(times: NDArray[np.datetime64], periods: Mapping[str, Period]) -> Finding:
    return Finding(
        "periods-without-data",
        "error",
        "The source has no time in any period",
        "data.periods",
        f"{times[0]} to {times[-1]} in the source",
        "Change the periods, or choose another source.",
    )


def _known(
    config: Config,
    cube: xr.Dataset,
    sample: Mapping[str, NDArray],
    positions: NDArray[np.int64],
) -> dict[str, NDArray]:
    """Forcings at the times of the sample, and static fields, by name."""
    names = [name for name in config.data.forcing if name in CHANNELS]
    fields = forcing_fields(names, cube["time"].values[positions], *grid_of(cube).places)
    known = {name: fields[:, number] for number, name in enumerate(forcing_channels(names))}
    return known | {name: sample[name] for name in config.data.static}


def _digest(cube: xr.Dataset, sample: Mapping[str, NDArray]) -> str:
    digest = hashlib.sha256()
    for name in ("time", "latitude", "longitude"):
        digest.update(coordinate_bytes(cube[name].values))
    for name in sorted(sample):
        digest.update(f"{name}:{cube[name].attrs.get('units')}:".encode())
        digest.update(np.ascontiguousarray(sample[name]).tobytes())
    return digest.hexdigest()
