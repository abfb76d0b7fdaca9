"""Whether values can be what they claim: units, missing values, channels that never vary."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from climlstm.audit.findings import Finding
from climlstm.data.cube.cube import CubePlan
from climlstm.data.cube.recipes import Recipe
from climlstm.data.sources.units import STANDARD_GRAVITY, conversion
from climlstm.errors import DataError

Sample = Mapping[str, NDArray[np.float32]]
"""Some steps of each channel: (step, H, W), in our units."""

MOSTLY = 0.5
"""Share of finite values below which a channel counts as mostly missing."""

SAME = 0.9999
"""Correlation from which two fields count as the same."""


@dataclass(frozen=True)
class PlausibleRange:
    """Range of the 1st and the 99th percentile of a quantity on Earth, with room to spare."""

    low: float
    high: float
    least: float = -np.inf
    """Least value of the 99th percentile."""
    others: tuple[str, ...] = ()
    """Units that are often mistaken for ours."""

    def holds(self, low: float, high: float) -> bool:
        return low >= self.low and high <= self.high and high >= self.least


TEMPERATURE = PlausibleRange(150, 350, others=("degC", "degF"))
WIND = PlausibleRange(-150, 150)

RANGES = {
    "air_temperature": TEMPERATURE,
    "dew_point_temperature": TEMPERATURE,
    "sea_surface_temperature": PlausibleRange(260, 320, others=("degC", "degF")),
    "air_pressure_at_mean_sea_level": PlausibleRange(85e3, 110e3, others=("hPa", "kPa")),
    "surface_air_pressure": PlausibleRange(30e3, 112e3, others=("hPa", "kPa")),
    "eastward_wind": WIND,
    "northward_wind": WIND,
    "wind_speed": PlausibleRange(-0.01, 150),
    "specific_humidity": PlausibleRange(-1e-3, 0.1, others=("g kg-1",)),
    "relative_humidity": PlausibleRange(-20, 200, least=2, others=("1",)),
    "cloud_area_fraction": PlausibleRange(-0.01, 1.5, others=("%",)),
    "land_area_fraction": PlausibleRange(-0.01, 1.5, others=("%",)),
    "lwe_thickness_of_precipitation_amount": PlausibleRange(-1e-3, 1, others=("mm",)),
    "surface_altitude": PlausibleRange(-500, 9000, others=("m2 s-2",)),
}
"""Ranges by CF standard name, in our units, from extremes of ERA5 and the WMO archive."""


def check_values(plan: CubePlan, sample: Sample) -> Iterator[Finding]:
    """Channels without values, without variation, or with values that their units do not allow."""
    for recipe in plan.recipes:
        name, values = recipe.channel.name, sample[recipe.channel.name]
        finite = values[np.isfinite(values)]
        where = f"channel '{name}', variable '{recipe.fields[0].variable}' of the source"
        if finite.size < MOSTLY * values.size:
            yield Finding(
                "channel-mostly-missing",
                "error",
                f"'{name}' is mostly without values",
                where,
                f"{1 - finite.size / max(values.size, 1):.0%} of the sampled values are missing "
                "or infinite",
                "Leave it out, choose a region and period that have it, or repair the source.",
            )
        elif np.isinf(values).any():
            yield Finding(
                "channel-infinite",
                "warning",
                f"'{name}' holds infinite values, which count as missing",
                where,
                f"{int(np.isinf(values).sum())} of {values.size} sampled values",
                "Declare the fill value in the catalog, or repair the source.",
            )
        if finite.size:
            yield from _check_variation(recipe, values, finite, where)
            yield from _check_units(plan, recipe, finite, where)


def _check_variation(
    recipe: Recipe, values: NDArray, finite: NDArray, where: str
) -> Iterator[Finding]:
    name = recipe.channel.name
    if recipe.channel.variable.static or len(values) < 2:
        return
    if float(finite.min()) == float(finite.max()):
        how = f"{float(finite[0]):g} everywhere"
    elif np.array_equal(values[1:], values[:-1], equal_nan=True):
        how = f"the same field at all {len(values)} sampled times"
    else:
        return
    yield Finding(
        "channel-constant",
        "error",
        f"'{name}' does not vary, so there is nothing to forecast",
        where,
        how,
        "Leave it out of data.state, or repair the source.",
    )


def _check_units(plan: CubePlan, recipe: Recipe, finite: NDArray, where: str) -> Iterator[Finding]:
    expected = _range(recipe)
    if expected is None:
        return
    low, high = (float(value) for value in np.percentile(finite, (1, 99)))
    if expected.holds(low, high):
        return
    variable = recipe.channel.variable
    label = str(plan.source[recipe.fields[0].variable].attrs.get("units", variable.units))
    meant = None if variable.derive is not None else _meant(expected, recipe, label, low, high)
    remedy = f"they look like {meant}: declare 'units: {meant}' for it in the catalog, under " + (
        f"metadata: 'variables: {{{recipe.fields[0].variable}: {{units: {meant}}}}}'."
    )
    yield Finding(
        "units-contradict-values",
        "error",
        f"The values of '{recipe.channel.name}' cannot be in '{label}', as they are labelled",
        where,
        f"{low:g} to {high:g} {variable.units} (1st to 99th percentile), "
        f"expected {max(expected.low, expected.least):g} to {expected.high:g}"
        if expected.least < high
        else f"at most {high:g} {variable.units}, expected more than {expected.least:g}",
        remedy[0].upper() + remedy[1:]
        if meant
        else "Correct the units in the catalog, or the source.",
    )


def _meant(
    expected: PlausibleRange, recipe: Recipe, label: str, low: float, high: float
) -> str | None:
    """The unit in which the stored values would be plausible."""
    ours, standard_name = recipe.channel.variable.units, recipe.channel.variable.standard_name
    try:
        as_labelled = conversion(label, ours, standard_name=standard_name)
    except DataError:
        return None
    for other in (*expected.others, ours):
        as_meant = conversion(other, ours, standard_name=standard_name)
        found = [
            as_meant.scale * (value - as_labelled.offset) / as_labelled.scale + as_meant.offset
            for value in (low, high)
        ]
        if other != label and expected.holds(*found):
            return other
    return None


def _range(recipe: Recipe) -> PlausibleRange | None:
    variable, level = recipe.channel.variable, recipe.channel.level
    if variable.standard_name == "geopotential" and level is not None:
        standard = STANDARD_GRAVITY * standard_height(level)
        apart = 3000 + 0.25 * abs(standard)
        return PlausibleRange(standard - apart, standard + apart, others=("geopotential_metre",))
    return RANGES.get(variable.standard_name or "")


def standard_height(pressure: float) -> float:
    """Geopotential height (m) of a pressure (hPa) in the ICAO standard atmosphere (ISO 2533).

    Polytropic up to 11 km (226.32 hPa), isothermal above it.
    """
    if pressure > 226.32:
        return 44330.8 * (1 - (pressure / 1013.25) ** 0.190263)
    return 11000 + 6341.6 * float(np.log(226.32 / pressure))


def check_repeats(
    sample: Sample, state: Sequence[str], known: Mapping[str, NDArray]
) -> Iterator[Finding]:
    """State that is already present as a forcing, a static field or another channel.

    known: forcings (step, H, W) at the times of the sample, and static fields (1, H, W).
    """
    others = {f"forcing or static field '{name}'": field for name, field in known.items()}
    for number, name in enumerate(state):
        for other in state[:number]:
            yield from _same(name, sample[name], f"channel '{other}'", sample[other])
        for other, field in others.items():
            yield from _same(name, sample[name], other, np.broadcast_to(field, sample[name].shape))


def _same(name: str, values: NDArray, other: str, field: NDArray) -> Iterator[Finding]:
    both = np.isfinite(values) & np.isfinite(field)
    first, second = values[both].astype("float64"), field[both].astype("float64")
    if first.size < 3 or first.std() == 0 or second.std() == 0:
        return
    correlation = float(np.corrcoef(first, second)[0, 1])
    if abs(correlation) > SAME:
        yield Finding(
            "target-is-known",
            "warning",
            f"'{name}' is forecast, but known already from the {other}",
            f"data.state: {name}",
            f"correlation {correlation:.5f}",
            f"Leave '{name}' out of data.state: scores on it say nothing of skill.",
        )
