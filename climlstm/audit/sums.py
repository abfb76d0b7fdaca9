"""Whether sums over time are what they are taken for."""

from collections.abc import Iterator

import numpy as np

from climlstm.advice import variable_line
from climlstm.audit.findings import Finding
from climlstm.calendars import clock
from climlstm.data.cube.accumulation import AS_STORED, is_sum_since_midnight, time_method
from climlstm.data.cube.cube import CubePlan, explain_read_errors
from climlstm.steps import Step

DAYS = 4
"""Days at the beginning of a source that are looked at."""

MAX_TIMES = 200


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
                times = clock(plan.axes.time.values)
                near = times < times[0] + np.timedelta64(DAYS, "D")
                near &= np.arange(times.size) < MAX_TIMES
                some = stored.isel({d: i for d, i in field.positions if d in stored.dims})
                some = some.transpose(time, ...).isel({time: near})
                with explain_read_errors(f"Channel '{recipe.channel.name}'"):
                    values = np.asarray(some.values)
                if is_sum_since_midnight(values, times[near]):
                    yield _since_midnight(field.variable, where)
                    continue
            if combined:
                yield Finding(
                    "put-together-in-time",
                    "note",
                    f"'{recipe.channel.name}': {said.method} over {step}",
                    where,
                    "its values stand for shorter intervals, or for the day so far",
                    "If they do not, declare it "
                    f"{variable_line(field.variable, accumulated='never')}.",
                )


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
