"""Statistics of a cube: what is known of each channel from the training period, as plain values."""

from dataclasses import astuple, dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from climlstm.calendars import PROLEPTIC, Times, calendar_of, time_text
from climlstm.data.statistics.summary import unpack
from climlstm.errors import DataError
from climlstm.steps import parse_time

Period = tuple[pd.Timestamp, pd.Timestamp]
"""First and last moment, both included."""

FORMAT = 2
"""Version of what statistics mean; cached ones of another version are made anew."""


@dataclass(frozen=True)
class MissingValues:
    """A step at which a channel lacks values that it has at other times."""

    channel: str
    time: Any
    """datetime64, or cftime."""
    cells: int
    """Number of cells without a value."""
    latitude: float
    """Place of the first of them, degrees north."""
    longitude: float
    """Place of the first of them, degrees east."""

    def __str__(self) -> str:
        return (
            f"{self.channel} at {time_text(self.time)}: {self.cells} cells without a value, "
            f"the first at latitude {self.latitude:g}, longitude {self.longitude:g}"
        )


@dataclass(frozen=True)
class ExtremeValue:
    """The least or greatest value of a channel in all periods, and where it comes first."""

    channel: str
    value: float
    count: int
    """Number of cells and steps with this value."""
    time: Any
    latitude: float
    longitude: float

    def __str__(self) -> str:
        return (
            f"{self.value:.7g} at {self.count} place{'s' if self.count > 1 else ''}, the first at "
            f"{time_text(self.time)}, latitude {self.latitude:g}, longitude {self.longitude:g}"
        )


@dataclass(frozen=True)
class ConstantSteps:
    """Steps at which a channel has the same value everywhere."""

    channel: str
    count: int
    time: Any
    """Time of the first."""


@dataclass(frozen=True, eq=False)
class Statistics:
    """Mean, standard deviations and gaps of each channel.

    Means over time and space are weighted by the area of the cells, as the losses are.
    """

    channels: tuple[str, ...]
    mean: NDArray[np.float64]
    """(C,), over the training period, in the units of the channels."""
    std: NDArray[np.float64]
    """(C,): of all values of the training period."""
    tendency_std: NDArray[np.float64]
    """(C,): of the change over one step."""
    observed: NDArray[np.bool_]
    """(C, H, W): False where a channel has no value at any time of the training period."""
    missing: tuple[MissingValues, ...]
    """Missing values in all periods, in order of time."""
    train: Period
    others: tuple[Period, ...]
    """Further periods whose missing values were looked for."""
    digest: str
    """Digest of everything that these numbers depend on."""
    extremes: tuple[ExtremeValue, ...] = ()
    """Least and greatest value of each channel; empty in statistics of earlier versions."""
    constant: tuple[ConstantSteps, ...] = ()
    """Channels with steps that hold one value."""

    @property
    def unusable(self) -> Times:
        """Times that no window may contain, because some channel lacks values there."""
        times = [gap.time for gap in self.missing]
        return np.unique(np.array(times, dtype=None if times else "datetime64[ns]"))

    def of(self, channels: tuple[str, ...]) -> "Statistics":
        """Statistics of some of the channels, in another order."""
        at = [self.channels.index(name) for name in channels]
        return replace(
            self,
            channels=channels,
            mean=self.mean[at],
            std=self.std[at],
            tendency_std=self.tendency_std[at],
            observed=self.observed[at],
            missing=tuple(gap for gap in self.missing if gap.channel in channels),
            extremes=tuple(each for each in self.extremes if each.channel in channels),
            constant=tuple(each for each in self.constant if each.channel in channels),
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON; `from_dict` reads them back exactly."""
        return {
            "channels": list(self.channels),
            "mean": self.mean.tolist(),
            "std": self.std.tolist(),
            "tendency_std": self.tendency_std.tolist(),
            "observed": {
                "shape": list(self.observed.shape),
                "bits": np.packbits(self.observed).tobytes().hex(),
            },
            "missing": [
                [gap.channel, str(gap.time), gap.cells, gap.latitude, gap.longitude]
                for gap in self.missing
            ],
            "train": [str(moment) for moment in self.train],
            "others": [[str(moment) for moment in period] for period in self.others],
            "digest": self.digest,
            "extremes": [[*astuple(e)[:3], str(e.time), *astuple(e)[4:]] for e in self.extremes],
            "constant": [[e.channel, e.count, str(e.time)] for e in self.constant],
        } | self._calendar

    @property
    def _calendar(self) -> dict[str, str]:
        """The calendar of the times, where they are no datetime64."""
        dated: list[Any] = [*self.missing, *self.extremes, *self.constant]
        times = [each.time for each in dated]
        calendar = calendar_of(np.asarray(times[:1])) if times else PROLEPTIC
        return {} if calendar == PROLEPTIC else {"calendar": calendar}

    @classmethod
    def from_dict(cls, content: dict[str, Any]) -> "Statistics":
        """Raises DataError where the dictionary is not what `to_dict` gives."""
        try:
            shape = tuple(content["observed"]["shape"])
            time = partial(parse_time, calendar=content.get("calendar", PROLEPTIC))
            train, *others = (
                (pd.Timestamp(start), pd.Timestamp(stop))
                for start, stop in (content["train"], *content["others"])
            )
            return cls(
                channels=tuple(content["channels"]),
                mean=np.array(content["mean"], dtype="float64"),
                std=np.array(content["std"], dtype="float64"),
                tendency_std=np.array(content["tendency_std"], dtype="float64"),
                observed=unpack(bytes.fromhex(content["observed"]["bits"]), shape),
                missing=tuple(
                    MissingValues(channel, time(moment), cells, latitude, longitude)
                    for channel, moment, cells, latitude, longitude in content["missing"]
                ),
                train=train,
                others=tuple(others),
                digest=content["digest"],
                extremes=tuple(
                    ExtremeValue(channel, value, count, time(moment), *place)
                    for channel, value, count, moment, *place in content.get("extremes", ())
                ),
                constant=tuple(
                    ConstantSteps(channel, count, time(moment))
                    for channel, count, moment in content.get("constant", ())
                ),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise DataError(
                f"These are not statistics of climlstm's format {FORMAT}: {error!r}. "
                "Delete the file, so that they are computed anew."
            ) from error
