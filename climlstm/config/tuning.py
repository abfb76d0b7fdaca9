"""The section `tune` of a run file: a sweep over other keys."""

from typing import Annotated, Any, Literal

from pydantic import Field, PositiveInt, model_validator

from climlstm.config.values import Section


class SearchRange(Section):
    """Numbers between two ends, included; whole numbers, where both ends are."""

    low: int | float
    high: int | float
    scale: Literal["linear", "log"] = "linear"

    @model_validator(mode="after")
    def _ordered(self) -> "SearchRange":
        if not self.low < self.high:
            raise ValueError(f"low ({self.low}) must be less than high ({self.high})")
        if self.scale == "log" and self.low <= 0:
            raise ValueError(f"on a logarithmic scale low must be positive, not {self.low}")
        return self


class TuneConfig(Section):
    """A sweep over other keys of the run file, by `climlstm tune`."""

    keys: Annotated[
        dict[str, Annotated[tuple[Any, ...], Field(min_length=1)] | SearchRange],
        Field(min_length=1),
    ]
    """Values to try for each key: a list, or `{low: 1.0e-4, high: 1.0e-2, scale: log}`."""
    trials: PositiveInt = 20
    """Largest number of trials; lists with fewer combinations are tried once each."""
    grace: PositiveInt = 1
    """Validations of a trial before it can be stopped."""
    reduction: Annotated[float, Field(gt=1)] = 3.0
    """Keep the best 1/reduction of the trials at each rung."""
    concurrent: PositiveInt | None = None
    """Trials at once; None: as many as there are CPUs or GPUs."""
