"""Kinds of values in a run file: durations, sizes, moments; and how they are written."""

import re
from datetime import UTC, date, datetime, time, timedelta
from itertools import pairwise
from typing import Annotated, Any, Literal

import pandas as pd
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    PlainSerializer,
    WithJsonSchema,
    model_validator,
)

from climlstm.config.secrets import without_secrets
from climlstm.steps import Step, as_step, format_duration


class Section(BaseModel):
    """A part of the run file: frozen, unknown keys refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


Parameters = Annotated[dict[str, Any], AfterValidator(without_secrets)]
"""Values for the parameters of a catalog's entry."""

StepLength = Annotated[
    Step,
    BeforeValidator(as_step),
    PlainSerializer(str, return_type=str),
    WithJsonSchema({"type": "string"}),
]
"""A duration such as '6h', or calendar months: '1 month', 'season', 'year'."""


def _parse_duration(value: object) -> timedelta:
    duration = as_step(value).duration
    if duration is None:
        raise ValueError(f"expected a duration, such as '6h' or '1d', not months ('{value}')")
    return duration


Duration = Annotated[
    timedelta,
    BeforeValidator(_parse_duration),
    PlainSerializer(format_duration, return_type=str),
]


UNITS = {
    f"{prefix}{i}b": base**power
    for i, base in (("", 1000), ("i", 1024))
    for power, prefix in enumerate(("", "k", "m", "g", "t"))
    if power or not i
}


def _parse_size(value: object) -> int:
    match = re.fullmatch(r"(\d+(?:\.\d*)?)\s*([a-z]*)", str(value).strip().lower())
    unit = match and (match[2] if match[2].endswith("b") else f"{match[2]}b")
    if match is None or unit not in UNITS or isinstance(value, bool):
        raise ValueError("expected a size with its unit, such as '4GiB' or '800MB'")
    return int(float(match[1]) * UNITS[unit])


def format_size(number: float) -> str:
    """'1.5 GiB', '12 MiB': three digits at most."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if number < 999.5:
            return f"{number:.3g} {unit}"
        number /= 1024
    return f"{number:.3g} TiB"


Size = Annotated[int, BeforeValidator(_parse_size)]
"""Bytes."""


def _parse_moment(value: object) -> datetime | date:
    try:
        text = str(value)
        if not isinstance(value, datetime | date):
            value = date.fromisoformat(text) if len(text) <= 10 else datetime.fromisoformat(text)
        if not isinstance(value, datetime) or value.tzinfo is None:
            return value
        return value.astimezone(UTC).replace(tzinfo=None)
    except (ValueError, OverflowError):
        raise ValueError("expected a date such as 2016-12-31, or 2016-12-31T18:00 (UTC)") from None


Moment = Annotated[datetime | date, BeforeValidator(_parse_moment)]
"""A UTC time; a date alone means the whole day."""


def period_bounds(
    start: datetime | date, stop: datetime | date
) -> tuple[pd.Timestamp, pd.Timestamp]:
    """First and last moment between two ends, both included; a date means its whole day."""
    if not isinstance(stop, datetime):
        stop = datetime.combine(stop, time.max)
    return pd.Timestamp(start), pd.Timestamp(stop)


class Periods(Section):
    """Spans of time, ends included; they must not share a step."""

    train: tuple[Moment, Moment]
    valid: tuple[Moment, Moment]
    test: tuple[Moment, Moment]

    @model_validator(mode="after")
    def _ordered(self) -> "Periods":
        for name, (start, stop) in self.spans.items():
            if start > stop:
                raise ValueError(f"the period '{name}' ends ({stop}) before it starts ({start})")
        ordered = sorted(self.spans.items(), key=lambda item: item[1])
        for (name, (_, stop)), (other, (start, _)) in pairwise(ordered):
            if start <= stop:
                raise ValueError(
                    f"the periods '{name}' (until {stop}) and '{other}' (from {start}) overlap: "
                    "scores would be taken on data that were trained on"
                )
        return self

    def bounds(self, name: Literal["train", "valid", "test"]) -> tuple[pd.Timestamp, pd.Timestamp]:
        """First and last moment of a period, both included."""
        return period_bounds(*getattr(self, name))

    @property
    def spans(self) -> dict[str, tuple[pd.Timestamp, pd.Timestamp]]:
        """First and last moment of `train`, `valid` and `test`."""
        return {name: period_bounds(*span) for name, span in self}


def _parse_workers(value: object) -> int | tuple[int, int]:
    numbers = [int(n) for n in re.findall(r"-?\d+", str(value))]
    if str(value) == str(numbers[0] if len(numbers) == 1 else numbers) or value == tuple(numbers):
        if len(numbers) == 1 and numbers[0] >= 1:
            return numbers[0]
        if len(numbers) == 2 and 1 <= numbers[0] <= numbers[1]:
            return numbers[0], numbers[1]
    raise ValueError("expected a number of at least 1, or a range such as [2, 8]")


Workers = Annotated[int | tuple[int, int], BeforeValidator(_parse_workers)]
