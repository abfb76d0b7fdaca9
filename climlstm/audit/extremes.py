"""Whether the extremes of all values that statistics read can be, and whether channels vary."""

from collections.abc import Iterator

import numpy as np

from climlstm.advice import variable_line
from climlstm.audit.findings import Finding
from climlstm.audit.plausibility import plausible_range
from climlstm.data.cube.cube import CubePlan
from climlstm.data.cube.recipes import ChannelRecipe
from climlstm.data.statistics.statistics import ExtremeValue, Statistics

CODES = (
    *(-999.0, -9999.0, -99999.0, -999999.0, 9999.0, 99999.0, 999999.0),
    *(-32768.0, -32767.0, 32767.0, 65535.0, -2147483648.0, -2147483647.0),
    *(1e15, 1e20, -1e20, 1e30, -1e30, -1e33, -1e34, 1e34, 1e35, 1e36, 1e37, 9.969209968386869e36),
    *(-9.99e8, 9.999e20),
    *(3.4028234663852886e38, -3.4028234663852886e38),
)
"""Numbers that files use for missing values, and defaults of netCDF and Fortran."""

ROUND_CODES = (-99.0, -99.9, -99.99, -999.9, -9999.9, 999.0, 999.9, 9999.9)
"""Numbers that stand for missing values in some files, and are values in others."""

ROOM = 0.25
"""Part of a plausible range of percentiles by which single values may leave it on either side."""

HUGE = 1e15
"""No quantity of weather has a value beyond it in our units."""

FAR = 100.0
"""Standard deviations from the mean from which an extreme of an unknown quantity is reported."""

OFF = 5.0
"""Standard deviations from the mean from which a value that is a code of some files is reported."""


def check_statistics(plan: CubePlan, statistics: Statistics) -> Iterator[Finding]:
    """Impossible values, steps with one value, and channels that do not change in training."""
    for recipe in plan.recipes:
        name = recipe.channel.name
        if name not in statistics.channels:
            continue
        where = f"channel '{name}', variable '{recipe.fields[0].variable}' of the source"
        at = statistics.channels.index(name)
        spread = (float(statistics.mean[at]), float(statistics.std[at]))
        for extreme in statistics.extremes:
            if extreme.channel == name:
                yield from _check_extreme(plan, recipe, extreme, spread, where)
        for steps in statistics.constant:
            if steps.channel == name:
                yield Finding(
                    "steps-constant",
                    "warning",
                    f"'{name}' has the same value everywhere at {steps.count} steps",
                    where,
                    f"the first at {np.datetime_as_string(steps.time, 'm')} UTC",
                    "If they were never written, repair the source or choose periods without them.",
                )
        if not statistics.tendency_std[at] > np.finfo("float32").eps * spread[1]:
            yield Finding(
                "channel-constant",
                "error",
                f"'{name}' does not change in the training period, so there is nothing to learn",
                where,
                "every step is the same, or changes by the same amount, from "
                f"{statistics.train[0]} to {statistics.train[1]}",
                "Leave it out of data.state, or choose another data.periods.train.",
            )


def _check_extreme(
    plan: CubePlan,
    recipe: ChannelRecipe,
    extreme: ExtremeValue,
    spread: tuple[float, float],
    where: str,
) -> Iterator[Finding]:
    stored = _stored(recipe, extreme.value)
    if plan.source[recipe.fields[0].variable].attrs.get("trusted"):
        return
    limits = plausible_range(plan, recipe)
    code, doubtful = _one_of(CODES, stored), _one_of(ROUND_CODES, stored)
    if limits is not None:
        named = code is not None or doubtful is not None
        room = 0.0 if named else ROOM * (limits.high - limits.low)
        impossible = not limits.low - room <= extreme.value <= limits.high + room
    else:
        impossible = code is not None
    wrong = impossible or abs(extreme.value) > HUGE
    off = abs(extreme.value - spread[0]) / max(spread[1], 1e-30)
    far = limits is None and off > FAR
    often = doubtful is not None and extreme.count > 1 and (limits is None or off > OFF)
    if not (wrong or far or often):
        return
    code = doubtful if code is None else code
    what = "cannot be" if wrong else "may stand for a missing one"
    if far and not wrong:
        what = f"lies {FAR:.0f} standard deviations from its mean"
    units = recipe.channel.variable.units
    number = code if code is not None else stored
    fix = "Repair the source, or choose periods without it."
    if number is not None:
        variable = recipe.fields[0].variable
        fix = (
            "If it stands for a missing value, declare it "
            f"{variable_line(variable, missing=[_short(number)])}; if it is right, say so "
            f"{variable_line(variable, trusted=True)}."
        )
    yield Finding(
        "value-impossible" if wrong else "value-far-off",
        "error" if wrong else "warning",
        f"'{recipe.channel.name}' has a value that {what}",
        where,
        f"{extreme} ({units})",
        fix,
    )


def _one_of(codes: tuple[float, ...], stored: float | None) -> float | None:
    """The code that a stored value is, up to the digits of float32."""
    return next((c for c in codes if stored is not None and np.isclose(stored, c, rtol=1e-6)), None)


def _short(number: float) -> float:
    """A number in the digits that float32 has."""
    return float(str(np.float32(number)))


def _stored(recipe: ChannelRecipe, value: float) -> float | None:
    """A value as the source has it, in its units; None where several values make one."""
    if recipe.channel.variable.derive is not None or recipe.cells.coarsen > 1:
        return None
    return (value - recipe.fields[0].offset) / recipe.fields[0].scale
