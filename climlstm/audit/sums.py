"""Whether sums over time are what they are taken for."""

from collections.abc import Iterator

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from climlstm.advice import variable_line
from climlstm.audit.findings import Finding
from climlstm.calendars import clock
from climlstm.data.cube.accumulation import AS_STORED, is_sum_since_midnight, time_method
from climlstm.data.cube.cube import CubePlan, explain_read_errors
from climlstm.steps import Step

DAYS = 4
"""Days in a row that are looked at, in each of several parts of a source."""

MAX_TIMES = 200
"""Most times in a row that are looked at."""

PARTS = (0, 1, 1 / 2, 1 / 4, 3 / 4, 1 / 8, 3 / 8, 5 / 8, 7 / 8)
WET_PARTS = 4
"""Parts of a source in the order in which they are looked at, and how many with rain are enough:
files may change half-way, and the first days may be dry."""


def check_sums(plan: CubePlan, step: Step) -> Iterator[Finding]:
    """Sums that begin anew each day though nothing says so, and sums that are put together."""
    time = plan.axes.dims[0]
    for recipe in plan.recipes:
        for field in recipe.fields if not recipe.channel.variable.static else ():
            kept = AS_STORED.format(field.variable)
            combined = kept in plan.source
            stored = plan.source[kept if combined else field.variable].rename(field.variable)
            said = time_method(stored)
            if said is None:
                continue
            where = f"channel '{recipe.channel.name}', variable '{field.variable}' of the source"
            if said.method == "sum" and "accumulated" not in stored.attrs:
                some = stored.isel({d: i for d, i in field.positions if d in stored.dims})
                with explain_read_errors(f"Channel '{recipe.channel.name}'"):
                    begins_anew = _begins_anew(
                        some.transpose(time, ...), clock(plan.axes.time.values)
                    )
                if begins_anew:
                    yield _since_midnight(field.variable, where)
                    continue
            if combined:
                yield Finding(
                    "put-together-in-time",
                    "note",
                    f"'{recipe.channel.name}': {plan.source[field.variable].cell_methods[6:]} over "
                    f"{step}",
                    where,
                    "its values stand for shorter intervals, or for the day so far",
                    "If they do not, declare it "
                    f"{variable_line(field.variable, accumulated='never')}.",
                )


def _begins_anew(sums: xr.DataArray, times: NDArray[np.datetime64]) -> bool:
    """Whether sums (time, ...) begin anew each day in any of some parts."""
    length = min(int(np.searchsorted(times, times[0] + np.timedelta64(DAYS, "D"))), MAX_TIMES)
    wet = 0
    for share in PARTS:
        first = int(share * (times.size - length))
        part = slice(first, first + length)
        values = np.asarray(sums[part].values)
        if is_sum_since_midnight(values, times[part]):
            return True
        wet += bool((values > 0).any())
        if wet == WET_PARTS:
            break
    return False


def _since_midnight(name: str, where: str) -> Finding:
    return Finding(
        "sum-since-midnight",
        "error",
        f"'{name}' looks like a sum since the beginning of the day, but is not declared as one",
        where,
        "it rises through each day and falls at the same hour",
        f"Declare it {variable_line(name, accumulated='day')}; or, if each value is the sum since "
        f"the time before, {variable_line(name, accumulated='step')}.",
    )
