"""Steps in time: words, numbers, months and calendars."""

from datetime import timedelta

import cftime
import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from climlstm.calendars import calendar_of, time_text, within
from climlstm.errors import ConfigError, DataError
from climlstm.steps import DAY, MONTH, Step, lead_text, number_of_steps, parse_time, valid_times

CALENDARS = ("noleap", "360_day", "all_leap", "julian", "standard", "proleptic_gregorian")


@pytest.mark.parametrize(
    ("words", "months"),
    [
        *(("1 month", 1), ("month", 1), ("MS", 1), ("1MS", 1), ("P1M", 1), ("ME", 1), ("3MS", 3)),
        *(("season", 3), ("QS-DEC", 3), ("3 months", 3), ("P3M", 3), ("2QS", 6)),
        *(("year", 12), ("YS", 12), ("P1Y", 12), ("P1Y6M", 18), ("2 years", 24)),
    ],
)
def test_words_for_months(words, months):
    step = Step.parse(words)
    assert step == Step(months=months)
    assert Step.parse(str(step)) == step


@pytest.mark.parametrize(
    ("words", "text"),
    [("6h", "6h"), ("1d", "1d"), ("36h", "1d12h"), ("30min", "30min"), ("P1D", "1d")],
)
def test_words_for_durations(words, text):
    step = Step.parse(words)
    assert step.months == 0
    assert str(step) == text
    assert Step.parse(text) == step


@pytest.mark.parametrize("words", ["", "0h", "-6h", "6", "1M", "M", "0 months", "P1Y2D", "5ms"])
def test_words_that_are_no_step(words):
    with pytest.raises(ConfigError, match="expected a duration with its unit"):
        Step.parse(words)


def test_months_or_minutes_is_asked():
    with pytest.raises(ConfigError, match="write '1 month' or '1min'"):
        Step.parse("1M")


@pytest.mark.parametrize(
    "stamps",
    [
        ["1998-01-01", "1998-02-01", "1998-03-01", "1998-05-01"],  # ERA5
        ["1998-01-16T12", "1998-02-15", "1998-03-16T12", "1998-05-16T12"],  # CMIP
        ["1998-01-31", "1998-02-28", "1998-03-31", "1998-05-31"],
    ],
)
def test_a_month_counts_wherever_it_is_stamped(stamps):
    times = np.array(stamps, "M8[ns]")
    numbers = MONTH.number(times)
    assert numbers.tolist() == [0, 1, 2, 4]
    assert MONTH.time(numbers, times[0]).astype(str).tolist() == [
        f"1998-{month:02}-01T00:00:00.000000000" for month in (1, 2, 3, 5)
    ]


@pytest.mark.parametrize("hour", [0, 3, 9.5, 12])
def test_steps_count_from_the_origin_not_from_midnight(hour):
    times = np.datetime64("2001-02-27", "ns") + np.timedelta64(int(hour * 60), "m")
    times = times + np.arange(5) * np.timedelta64(6, "h")
    assert Step.parse("6h").number(times).tolist() == [0, 1, 2, 3, 4]


def test_a_thousandth_of_a_step_is_rounding_and_more_is_an_error():
    times = np.array(["2001-01-01", "2001-01-02T00:01", "2001-01-03"], "M8[ns]")
    assert DAY.number(times).tolist() == [0, 1, 2]
    times[1] += np.timedelta64(2, "m")
    with pytest.raises(DataError, match="2001-01-02 00:03 lies 3min off the steps of 1d counted"):
        DAY.number(times)
    with pytest.raises(DataError, match="lies 1 month off the steps of 3 months"):
        Step.parse("season").number(np.array(["2001-01-01", "2001-03-01"], "M8[s]"))


@given(
    calendar=st.sampled_from(CALENDARS),
    year=st.integers(1, 9990),
    day=st.integers(0, 364),
    hours=st.sampled_from([1, 3, 6, 24, 120]),
    numbers=st.lists(st.integers(0, 4000), min_size=1, max_size=8),
)
def test_times_and_numbers_are_inverse_in_every_calendar(calendar, year, day, hours, numbers):
    step = Step(duration=timedelta(hours=hours))
    origin = cftime.datetime(year, 1, 1, 12, calendar=calendar) + timedelta(days=day)
    naive = [origin + number * timedelta(hours=hours) for number in numbers]  # cftime's arithmetic
    assert step.number(naive, origin).tolist() == numbers
    assert step.time(numbers, origin).tolist() == naive
    leads = np.array(numbers) * np.timedelta64(hours, "h")
    assert valid_times([origin], leads)[0].tolist() == naive


@given(
    calendar=st.sampled_from(CALENDARS),
    year=st.integers(1, 9000),
    month=st.integers(1, 12),
    day=st.integers(1, 28),
    months=st.sampled_from([1, 3, 12]),
    numbers=st.lists(st.integers(0, 500), min_size=1, max_size=8),
)
def test_months_are_counted_alike_in_every_calendar(calendar, year, month, day, months, numbers):
    step = Step(months=months)
    origin = cftime.datetime(year, month, day, 12, calendar=calendar)
    times = step.time(numbers, origin)
    assert step.number(times, origin).tolist() == numbers
    for time, number in zip(times, numbers, strict=True):
        years, over = divmod(month - 1 + months * number, 12)
        assert (time.year, time.month, time.day, time.hour) == (year + years, over + 1, 1, 0)
        assert time.calendar == calendar
    assert (valid_times([origin], step.leads(numbers))[0] == times).all()


def test_a_period_ends_on_days_that_a_calendar_lacks():
    days = [cftime.datetime(2000, m, d, calendar="360_day") for m in (2, 3) for d in (28, 29, 30)]
    inside = within(np.array(days), (pd.Timestamp("2000-02-29"), pd.Timestamp("2000-03-31T23:59")))
    assert inside.tolist() == [False, True, True, True, True, True]
    days = [cftime.datetime(2000, 2, 28, calendar="noleap"), cftime.DatetimeNoLeap(2000, 3, 1)]
    period = (pd.Timestamp("2000-02-01"), pd.Timestamp("2000-02-29T23:59:59"))
    assert within(np.array(days), period).tolist() == [True, False]


def test_times_are_read_and_written_in_their_own_calendar():
    time = parse_time("2000-02-30T06", "360_day")
    assert time_text(time) == "2000-02-30 06:00"
    assert calendar_of(np.array([time])) == "360_day"
    with pytest.raises(ConfigError, match="'2000-02-31' is no time of the calendar '360_day'"):
        parse_time("2000-02-31", "360_day")
    assert time_text(np.datetime64("1998-03-01", "ns"), months=True) == "March 1998"
    leads = [np.timedelta64(6, "h"), pd.Timedelta("2D"), 3, np.int64(1), np.float64(12), pd.NaT]
    assert [lead_text(lead) for lead in leads] == [
        *("6 h", "48 h", "3 months", "1 month", "12 months", "")
    ]


def test_a_step_is_a_multiple_of_another_of_its_kind():
    assert Step.parse("1d").is_multiple_of(Step.parse("6h"))
    assert Step.parse("year").is_multiple_of(MONTH)
    assert not MONTH.is_multiple_of(DAY)
    assert not Step.parse("9h").is_multiple_of(Step.parse("6h"))


def test_counts_are_the_inverse_of_leads():
    for step in (Step.parse("6h"), Step.parse("3 months")):
        assert step.counts(step.leads([1, 2, 7])).tolist() == [1, 2, 7]
    with pytest.raises(DataError, match="between the steps of 6h"):
        Step.parse("6h").counts(np.array([6, 9], "m8[h]"))
    with pytest.raises(DataError, match="cannot be counted"):
        Step.parse("6h").counts(np.array([1, 2]))


@pytest.mark.parametrize(
    ("ahead", "step", "number"),
    [
        ("10d", "6h", 40),
        ("5 years", "6h", 7305),
        ("5 years", "1 month", 60),
        ("season", "MS", 3),
        ("7", "6h", 7),
    ],
)
def test_how_far_ahead_is_a_number_of_steps(ahead, step, number):
    assert number_of_steps(ahead, Step.parse(step)) == number_of_steps(number, DAY) == number


@pytest.mark.parametrize(
    ("ahead", "step"), [("7h", "6h"), ("30d", "1 month"), ("MS", "90d"), ("-1", "6h")]
)
def test_what_is_no_whole_number_of_steps_is_said(ahead, step):
    with pytest.raises(ConfigError, match=r"no whole number of steps|expected a duration"):
        number_of_steps(ahead, Step.parse(step))
