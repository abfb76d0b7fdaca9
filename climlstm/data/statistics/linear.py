"""Linear models of anomalies: what a network has to beat, and what it can start from.

Damped persistence regresses the anomaly of each cell on its own anomaly some steps before. A
linear inverse model (Penland and Sardeshmukh 1995, J. Climate 8, 1999-2024) carries the leading
empirical orthogonal functions (EOFs) of all channels forward by one matrix a step. Both are fitted
on the training period alone, to deviations from its climatology.
"""

import logging
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from climlstm.data.statistics.climatology import climatology_at
from climlstm.data.statistics.compute import digest_of
from climlstm.errors import DataError
from climlstm.files import lock, write_whole
from climlstm.grid import grid_of
from climlstm.steps import Step

logger = logging.getLogger(__name__)

Real = NDArray[np.floating]

BLOCK_BYTES = 1 << 27
"""Bytes of anomalies that are read together."""

SNAPSHOT_BYTES = 1 << 29
"""Bytes of the anomalies that EOFs are taken from: steps evenly spaced over the training period,
all of them where they fit."""

FORMAT = 1
"""Version of what a linear model means; cached ones of another version are made anew."""


@dataclass(frozen=True)
class Damping:
    """Damped persistence: a regression for each cell and lead."""

    slopes: Real
    """(L, C, H, W), for leads of 1 to L steps; 0 where nothing varies."""

    def propagate(self, anomaly: Real, steps: Sequence[int]) -> Real:
        """Anomalies (L, C, H, W) a number of steps after the anomaly (C, H, W)."""
        return self.slopes[np.asarray(steps) - 1] * anomaly


@dataclass(frozen=True)
class LinearModel:
    """Linear inverse model: x(t + 1) = E G E⁺ x(t) + d (x(t) - E E⁺ x(t)), x in units of `std`.

    What the EOFs leave out is damped cell by cell, so that a forecast of one step has all scales.
    """

    eofs: Real
    """E (K, C, H, W): of anomalies over `std`; orthonormal in the sum over cells times `area`."""
    propagator: Real
    """G (K, K): principal components, as a column, to those a step later."""
    damping: Real
    """d (C, H, W): slope over one step of what the EOFs leave out."""
    std: Real
    """Standard deviation (C) of the anomalies."""
    area: Real
    """Relative area (H, W) of the cells, with mean 1."""

    def propagate(self, anomaly: Real, steps: Sequence[int]) -> Real:
        """Anomalies (L, C, H, W) a number of steps after the anomaly (C, H, W)."""
        states = [(anomaly / self.std[:, None, None])[None]]
        for _ in range(max(steps)):
            components = self.project(states[-1])
            rest = states[-1] - self.compose(components)
            states.append(self.compose(components @ self.propagator.T) + self.damping * rest)
        return np.concatenate([states[n] for n in steps]) * self.std[:, None, None]

    def project(self, scaled: Real) -> Real:
        """Principal components (N, K) of fields (N, C, H, W) in units of `std`."""
        return (scaled * self.area).reshape(len(scaled), -1) @ self.eofs.reshape(
            len(self.eofs), -1
        ).T

    def compose(self, components: Real) -> Real:
        """Fields (N, C, H, W) in units of `std`, from principal components (N, K)."""
        flat = components @ self.eofs.reshape(len(self.eofs), -1)
        return flat.reshape(len(components), *self.eofs.shape[1:])


def fit_damping(cube: xr.Dataset, climatology: xr.Dataset, *, step: Step, steps: int) -> Damping:
    """Damped persistence for leads of 1 to `steps` steps.

    cube, climatology: the usable steps of the training period, and its climatology.
    Memory: `steps` fields of sums, and as many of anomalies.
    """
    series = anomaly_series(cube, climatology, step)
    slopes = _Slopes(range(1, steps + 1))
    for numbers, anomalies in series.blocks():
        slopes.update(numbers, anomalies)
    return Damping(slopes.finish().astype("float32"))


def fit_linear(
    cube: xr.Dataset,
    climatology: xr.Dataset,
    *,
    step: Step,
    eofs: int,
    cache: Path | None = None,
) -> LinearModel:
    """A linear inverse model of that many EOFs of all channels of the cube together.

    cube, climatology: the usable steps of the training period, and its climatology.
    cache: a folder; a model found there under the same digest is not fitted again.
    Raises DataError for more EOFs than the period has steps, or the grid cells, to fit.
    """
    series = anomaly_series(cube, climatology, step)
    if cache is None:
        return _fit(series, eofs)
    settings = [FORMAT, eofs, str(step), str(climatology.attrs)]
    kept = cache / f"linear-{digest_of(cube, [*map(str, cube)], settings)[:16]}.npz"
    with lock(kept):
        if not kept.is_file():
            model = _fit(series, eofs)
            with write_whole(kept) as written, written.open("wb") as file:
                np.savez(file, **{each.name: getattr(model, each.name) for each in fields(model)})
            return model
    with np.load(kept) as stored:
        return LinearModel(**stored)


@dataclass(frozen=True)
class AnomalySeries:
    """Anomalies of the steps of a cube, read in blocks."""

    cube: xr.Dataset
    climatology: xr.Dataset
    numbers: NDArray[np.int64]
    """Number of each step since the first one: neighbours differ by 1."""

    @property
    def step_bytes(self) -> int:
        return 4 * len(self.cube.data_vars) * self.area.size

    @property
    def area(self) -> Real:
        return grid_of(self.cube).area

    def read(self, places: NDArray[np.int64]) -> NDArray[np.float32]:
        """Anomalies (N, C, H, W) at places in the series; 0 where there is never a value."""
        fields = self.cube.isel(time=places).load()
        normal = climatology_at(self.climatology, fields["time"].values)
        anomalies = np.stack([fields[n].values - normal[n].values for n in fields], axis=1)
        return np.nan_to_num(anomalies.astype("float32", copy=False), copy=False)

    def blocks(self) -> Iterator[tuple[NDArray[np.int64], NDArray[np.float32]]]:
        """Yield numbers and anomalies of consecutive steps."""
        size = max(1, BLOCK_BYTES // self.step_bytes)
        for first in range(0, self.numbers.size, size):
            places = np.arange(first, min(first + size, self.numbers.size))
            yield self.numbers[places], self.read(places)


def anomaly_series(cube: xr.Dataset, climatology: xr.Dataset, step: Step) -> AnomalySeries:
    """The anomalies of the usable steps of a period. Raises DataError for fewer than three."""
    times = cube["time"].values
    if times.size < 3:
        raise DataError(
            f"The training period holds {times.size} usable steps; a linear model needs three "
            "at least. Change data.periods.train."
        )
    return AnomalySeries(cube, climatology, step.number(times))


class _Slopes:
    """Regression of each cell on itself some steps before, from blocks in order of time."""

    def __init__(self, lags: Iterable[int]) -> None:
        self.lags = tuple(lags)
        self.sums: Any = None
        self.held: tuple[Any, Any] | None = None

    def update(self, numbers: NDArray[np.int64], fields: Real) -> None:
        """Add the pairs that end in this block."""
        if self.held is None:
            self.sums = np.zeros((2, len(self.lags), *fields.shape[1:]))
            self.held = numbers[:0], fields[:0]
        known = np.concatenate([self.held[0], numbers])
        values = np.concatenate([self.held[1], fields])
        for place, lag in enumerate(self.lags):
            before = np.searchsorted(known, numbers - lag)
            there = known[before] == numbers - lag
            earlier, later = values[before[there]], fields[there]
            self.sums[0, place] += np.einsum("nchw,nchw->chw", earlier, later)
            self.sums[1, place] += np.einsum("nchw,nchw->chw", earlier, earlier)
        recent = known > known[-1] - max(self.lags)
        self.held = known[recent], values[recent]

    def finish(self) -> Real:
        """Slopes (lags, C, H, W); 0 where nothing varies."""
        products, squares = self.sums
        return np.divide(products, squares, out=np.zeros_like(products), where=squares > 0)


def _fit(series: AnomalySeries, eofs: int) -> LinearModel:
    """EOFs from snapshots; propagator and damping from all pairs of neighbouring steps."""
    most = max(2 * eofs, SNAPSHOT_BYTES // series.step_bytes)
    places = np.unique(np.linspace(0, series.numbers.size - 1, most).round().astype("int64"))
    snapshots = series.read(places)
    area = series.area
    std = np.sqrt((snapshots.astype("float64") ** 2 * area).mean(axis=(0, 2, 3)))
    std = np.where(std > 0, std, 1.0)
    scaled = snapshots / std[:, None, None].astype("float32")
    found = _leading(scaled * np.sqrt(area).astype("float32"), eofs) / np.sqrt(area)
    model = LinearModel(found.astype("float32"), np.eye(eofs), np.zeros(found.shape[1:]), std, area)
    del snapshots, scaled
    components, slopes = [], _Slopes([1])
    for numbers, anomalies in series.blocks():
        fields = anomalies / std[:, None, None].astype("float32")
        components.append(model.project(fields))
        slopes.update(numbers, fields - model.compose(components[-1]))
    pcs = np.concatenate(components)
    pairs = np.flatnonzero(np.diff(series.numbers) == 1)
    if pairs.size <= eofs:
        raise DataError(
            f"A linear model of {eofs} EOFs cannot be fitted to {pairs.size} pairs of neighbouring "
            f"steps. Choose fewer (its option eofs), or a longer training period."
        )
    propagator = np.linalg.lstsq(pcs[pairs], pcs[pairs + 1], rcond=None)[0].T
    radius = np.abs(np.linalg.eigvals(propagator)).max()
    if radius >= 1:
        logger.warning(
            "The linear model of %d EOFs grows without end (spectral radius %.3f): too many EOFs "
            "for %d pairs of steps. Choose fewer (its option eofs).",
            eofs,
            radius,
            pairs.size,
        )
    damping = slopes.finish()[0].astype("float32")
    return LinearModel(model.eofs, propagator, damping, std, area)


def _leading(fields: NDArray[np.float32], number: int) -> Real:
    """Leading singular vectors (K, C, H, W) of fields (N, C, H, W), the strongest first.

    From the eigenvectors of the smaller of the two matrices of products. The sign of each is that
    which makes its largest value positive, so that it does not depend on the library.
    """
    flat = fields.reshape(len(fields), -1)
    if number > min(flat.shape):
        raise DataError(
            f"There are no {number} EOFs of {flat.shape[0]} steps with {flat.shape[1]} values "
            "each. Choose fewer (its option eofs)."
        )
    many = flat.shape[0] > flat.shape[1]
    products = (flat.T @ flat if many else flat @ flat.T).astype("float64")
    _, vectors = np.linalg.eigh(products)
    leading = vectors[:, ::-1][:, :number].T
    found = leading if many else leading @ flat
    found /= np.linalg.norm(found, axis=1, keepdims=True)
    largest = np.take_along_axis(found, np.abs(found).argmax(axis=1)[:, None], axis=1)
    return (found * np.sign(largest)).reshape(number, *fields.shape[1:])
