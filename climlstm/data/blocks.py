"""Blocks of a cube: steps read through Dask, normalised, as float32 (step, C, H, W)."""

from collections.abc import Sequence
from dataclasses import dataclass

import dask.array as da
import numpy as np
import xarray as xr
from numpy.typing import NDArray

from climlstm.errors import DataError

Block = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Scaling:
    """How a block is normalised: (value - mean) / std; cells never observed become 0, the mean."""

    mean: NDArray[np.float32]
    """(C,)"""
    std: NDArray[np.float32]
    """(C,)"""
    observed: NDArray[np.bool_] | None = None
    """(C, H, W); everywhere, if None."""

    def apply(self, block: Block) -> None:
        """Normalise (step, C, H, W) in place."""
        np.subtract(block, self.mean[:, None, None], out=block)
        np.divide(block, self.std[:, None, None], out=block)
        if self.observed is not None:
            for channel, observed in enumerate(self.observed):
                if not observed.all():
                    block[:, channel, ~observed] = 0


class CubeReader:
    """Steps of a cube as normalised blocks, one Dask task a chunk, each writing into its place."""

    def __init__(self, cube: xr.Dataset, channels: Sequence[str], scaling: Scaling):
        self.times = cube["time"].values
        self.latitude = cube["latitude"].values
        self.longitude = cube["longitude"].values
        self.shape = (len(channels), self.latitude.size, self.longitude.size)
        self.channels = tuple(channels)
        self.scaling = scaling
        dims = ("time", "latitude", "longitude")
        self._arrays = [da.asarray(cube[name].transpose(*dims).data) for name in channels]

    def read(self, steps: NDArray[np.int64], out: Block) -> None:
        """Fill `out` (step, C, H, W) with the given steps, increasing positions in time.

        Raises DataError for a value that is missing or infinite where it is observed otherwise.
        """
        sources, targets = [], []
        for run in np.split(np.arange(steps.size), np.flatnonzero(np.diff(steps) != 1) + 1):
            first, last = steps[run[0]], steps[run[-1]]
            for channel, array in enumerate(self._arrays):
                sources.append(array[first : last + 1])
                targets.append(out[run[0] : run[-1] + 1, channel])
        da.store(sources, targets, lock=False, scheduler="threads")
        self.scaling.apply(out)
        self._check(steps, out)

    def _check(self, steps: NDArray[np.int64], block: Block) -> None:
        with np.errstate(invalid="ignore"):
            suspects = np.flatnonzero(~np.isfinite(block.sum(axis=(1, 2, 3))))
        for suspect in suspects:
            bad = np.argwhere(~np.isfinite(block[suspect]))
            if bad.size == 0:
                continue
            channel, row, column = bad[0]
            raise DataError(
                f"Channel '{self.channels[channel]}' has {len(bad)} missing or infinite values at "
                f"{self.times[steps[suspect]]}, the first at latitude {self.latitude[row]:g}, "
                f"longitude {self.longitude[column]:g}, where other times have values. Compute the "
                "statistics anew, so that windows go round such times, or repair the source."
            )
