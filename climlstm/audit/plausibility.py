"""Whether values can be what they claim: units, missing values, channels that never vary."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from climlstm.advice import variable_line
from climlstm.audit.atmosphere import geopotential_bounds
from climlstm.audit.findings import Finding
from climlstm.data.cube.cube import CubePlan
from climlstm.data.cube.recipes import ChannelRecipe
from climlstm.data.sources.fills import stated_fills
from climlstm.data.sources.units import conversion, require_unit
from climlstm.errors import DataError
from climlstm.plugins import discover
from climlstm.plugins.running import plugin_of

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
        ever = np.isfinite(values).any(axis=0).sum() * len(values)  # land or sea alone is no fault
        if not finite.size or finite.size < MOSTLY * ever:
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
        yield from _check_fills(plan, recipe, values, where)
        yield from _check_steps(recipe, values, where)
        if finite.size:
            yield from _check_variation(recipe, values, finite, where)
            yield from _check_units(plan, recipe, finite, where)


def _check_fills(
    plan: CubePlan, recipe: ChannelRecipe, values: NDArray, where: str
) -> Iterator[Finding]:
    """Missing values whose fill value may be a value: 0 °C, 0 mm."""
    field, expected = recipe.fields[0], plausible_range(plan, recipe)
    if np.isfinite(values).all() or recipe.channel.variable.derive is not None:
        return
    variable = plan.source[field.variable].variable
    unpack, add = (
        variable.encoding.get(key, default)
        for key, default in (("scale_factor", 1.0), ("add_offset", 0.0))
    )
    for fill in stated_fills(variable):
        value = field.scale * (unpack * fill + add) + field.offset
        low, high = (np.nanmin(values), np.nanmax(values)) if np.isfinite(values).any() else (1, 0)
        if expected is not None:
            low, high = expected.low, expected.high
        if low <= value <= high:
            yield Finding(
                "fill-may-be-a-value",
                "warning",
                f"Missing values of '{recipe.channel.name}' are stored as a value that is possible",
                where,
                f"{fill:g}, which would be {value:g} {recipe.channel.variable.units}; "
                f"{1 - np.isfinite(values).mean():.0%} of the sampled values are missing",
                f"If they are values, say so {variable_line(field.variable, valid=[float(fill)])}.",
            )


def _check_steps(recipe: ChannelRecipe, values: NDArray, where: str) -> Iterator[Finding]:
    """Steps that lack values which other steps have; windows go round them."""
    missing = ~np.isfinite(values)
    lacking = int(np.any(missing & ~missing.all(axis=0), axis=(1, 2)).sum())
    if lacking and not recipe.channel.variable.static:
        yield Finding(
            "steps-incomplete",
            "warning",
            f"Steps of '{recipe.channel.name}' lack values that other steps have; windows go round "
            "them",
            where,
            f"{lacking} of {len(values)} sampled steps",
            "Choose periods or a region that have all values, or repair the source.",
        )


def _check_variation(
    recipe: ChannelRecipe, values: NDArray, finite: NDArray, where: str
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


def _check_units(
    plan: CubePlan, recipe: ChannelRecipe, finite: NDArray, where: str
) -> Iterator[Finding]:
    kept_in = recipe.channel.variable
    try:
        if any(plugin.name == kept_in.name for plugin in discover("variables")):
            require_unit(kept_in.units)
    except DataError as error:
        plugin = plugin_of("variables", kept_in.name, kept_in)
        yield Finding(
            "unit-unknown",
            "error",
            f"The {plugin} is kept in a unit that does not exist",
            where,
            f"'{kept_in.units}': {error}",
            "Correct the units of the variable in its package, or leave the channel out.",
        )
        return
    expected = plausible_range(plan, recipe)
    if expected is None:
        return
    low, high = (float(value) for value in np.percentile(finite, (1, 99)))
    attrs = plan.source[recipe.fields[0].variable].attrs
    if expected.holds(low, high) or attrs.get("trusted"):
        return
    variable = recipe.channel.variable
    label = str(attrs.get("units", variable.units))
    apart = low > expected.high or high < expected.low
    unsure = variable.derive is not None or not apart
    meant = None if unsure else _meant(expected, recipe, label, low, high)
    stored = recipe.fields[0].variable
    right = f"If the values are right, say so {variable_line(stored, trusted=True)}."
    width = expected.high - expected.low
    far = low < expected.low - width or high > expected.high + width or high < expected.least
    yield Finding(
        "units-contradict-values",
        "error" if meant or far else "warning",
        f"The values of '{recipe.channel.name}' cannot be in '{label}', as they are labelled",
        where,
        f"{low:g} to {high:g} {variable.units} (1st to 99th percentile), "
        f"expected {max(expected.low, expected.least):g} to {expected.high:g}"
        if expected.least < high
        else f"at most {high:g} {variable.units}, expected more than {expected.least:g}",
        f"They look like '{meant}': declare it {variable_line(stored, units=meant)}. {right}"
        if meant
        else f"Correct the units in the catalog, or the source. {right}",
    )


def _meant(
    expected: PlausibleRange, recipe: ChannelRecipe, label: str, low: float, high: float
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


def plausible_range(plan: CubePlan, recipe: ChannelRecipe) -> PlausibleRange | None:
    """Range of a channel's percentiles where the cube lies, in our units; None if not known."""
    variable, level = recipe.channel.variable, recipe.channel.level
    if variable.standard_name != "geopotential" or level is None:
        return RANGES.get(variable.standard_name or "")
    bounds = geopotential_bounds(level, plan.cube["latitude"].values)
    return bounds and PlausibleRange(*bounds, others=("geopotential_metre",))


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
