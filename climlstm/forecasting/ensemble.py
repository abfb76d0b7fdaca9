"""Ensembles: members differ by noise that the network was trained with, or by perturbed states.

The perturbation of a member is the difference of two states of the training period over the square
root of 2, times an amplitude: a random draw from the climate with that fraction of its standard
deviation, whose channels and places belong together as they do in nature (Magnusson, Nycander and
Källén 2009, Tellus A 61, 194-209). Both states are of the hour of the day of the initialisation and
within 45 days of its season, and lie at least ten days apart.

Members are exchangeable: none is unperturbed, so that fair scores hold for them.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from climlstm.calendars import Times, clock
from climlstm.errors import ConfigError, DataError
from climlstm.model.noise import pair_seed
from climlstm.model.spec import Spec
from climlstm.steps import as_times

DAY = np.timedelta64(1, "D")
YEAR_DAYS = 365.2425
SEASON_DAYS = 45.0
APART = 10 * DAY


@dataclass(frozen=True)
class Perturbations:
    """Source and size of the perturbations of initial states."""

    amplitude: float
    """Share of the climatological standard deviation."""
    times: Times
    """Times of the training period at which states may be drawn."""
    states: Callable[[Times], NDArray[np.float32]]
    """The known states (B, T, C, H, W), in physical units, that end at B of the times."""

    def draw(self, seed: int, init_times: Times, members: NDArray[np.int_]) -> NDArray[np.float32]:
        """Perturbations (B, T, C, H, W) of known states, for B pairs of start and member."""
        pairs = [
            self._pair(np.random.default_rng(pair_seed((seed,), init_time, int(member))), init_time)
            for init_time, member in zip(init_times, members, strict=True)
        ]
        drawn = self.states(np.array(pairs, dtype=self.times.dtype).T.ravel())
        scale = np.float32(self.amplitude / np.sqrt(2))
        perturbation: NDArray[np.float32] = (drawn[: len(pairs)] - drawn[len(pairs) :]) * scale
        return perturbation

    def _pair(self, generator: np.random.Generator, init_time: Any) -> tuple[Any, Any]:
        alike = self.times[_is_alike(self.times, init_time)]
        partnered = alike[:0]
        if alike.size:
            line = clock(alike)
            partnered = alike[(line - line.min() >= APART) | (line.max() - line >= APART)]
        if partnered.size == 0:
            raise DataError(
                f"Members that start at {init_time} are perturbed by differences of states of that "
                f"hour and season (within {SEASON_DAYS:g} days) ten days apart, but the training "
                f"period has {alike.size} of them, none so far apart. Train on a longer period, or "
                "train with model.noise and forecast with --perturbation 0 (perturbation=0)."
            )
        first = generator.choice(partnered)
        return first, generator.choice(alike[np.abs(line - clock(as_times(first))) >= APART])


@dataclass(frozen=True)
class Ensemble:
    """Number of members, and how they differ. The same seed gives the same members."""

    members: int
    seed: int = 0
    perturbations: Perturbations | None = None

    @property
    def description(self) -> dict[str, Any] | None:
        """Attributes that tell how members were made, kept in the store; None for a single one."""
        if self.members == 1:
            return None
        amplitude = 0.0 if self.perturbations is None else self.perturbations.amplitude
        return {"members": self.members, "seed": self.seed, "perturbation": amplitude}

    def check(self, spec: Spec) -> None:
        """Raises ConfigError where all members would be alike."""
        if self.members > 1 and self.perturbations is None and not spec.noise:
            raise ConfigError(
                f"{self.members} members would be alike: the network was trained without noise, "
                "and initial states are not perturbed. Forecast with --perturbation 0.1 "
                "(perturbation=0.1), or train with model.noise."
            )


def _is_alike(times: Times, init_time: Any) -> NDArray[np.bool_]:
    """Mask of the times that share the hour of the day and the season of another time."""
    apart = clock(times) - clock(as_times(init_time))
    days = np.abs(apart) / DAY % YEAR_DAYS
    in_season = np.minimum(days, YEAR_DAYS - days) <= SEASON_DAYS
    return in_season & (apart % DAY == np.timedelta64(0))
