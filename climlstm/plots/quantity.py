"""Kinds of numbers that a field may hold: differences, categories, directions, patches of rain.

A map of differences must not lose 273.15 K, and one of categories must not invent a half of two
kinds of soil; attributes, names and the numbers themselves tell which is which.
"""

import re
from dataclasses import dataclass

import numpy as np
import xarray as xr

from climlstm.data.sources.units import conversion
from climlstm.errors import DataError

DIFFERENCES = frozenset([
    "anom", "anomaly", "anomalies", "bias", "change", "departure", "departures", "dev",
    "deviation", "diff", "difference", "differences", "error", "errors", "increment",
    "increments", "perturbation", "range", "rmse", "sd", "sigma", "spread", "std", "stddev",
    "stdev", "trend",
])  # fmt: skip
"""Words in the name of a field that say that it is a difference of two, or the size of some."""

PRECIPITATION = frozenset([
    "graupel", "hail", "pr", "precip", "precipitation", "prsn", "rain", "rainfall", "rainnc",
    "rainc", "snowfall", "tp",
])  # fmt: skip
CATEGORIES = ("category", "class", "classes", "flag", "index", "mask", "type")
"""Endings of words in the name of a field of kinds: 'landmask' is one, too."""

NAMES = ("long_name", "standard_name", "description")
"""Attributes in which files name a field; WRF has the last one."""

COLDEST_K = 100.0
"""No air on Earth is colder; fields in kelvin below this are differences."""

MOST_CATEGORIES = 24


@dataclass(frozen=True)
class Quantity:
    """The kind of numbers in a field, which decides their units, colours and shading."""

    is_difference: bool = False
    """Differences and spreads: a factor converts their unit, never an offset."""
    categories: tuple[tuple[float, str], ...] = ()
    """Values and names of kinds that nothing lies between; empty for anything measured."""
    is_direction: bool = False
    """Degrees around a circle, where 359 and 1 are neighbours."""
    is_component: bool = False
    """One part of a vector, or what else is as often negative as positive."""
    is_patchy: bool = False
    """Rain and the like: mostly nothing, and where there is some, with an edge."""


def quantity_of(field: xr.DataArray, *, difference: bool | None = None) -> Quantity:
    """The kind of numbers in a field.

    difference: what the caller knows; None: found from `cell_methods`, names, and kelvins that are
    no temperature of air.
    Raises DataError for temperatures below absolute zero among plausible ones.
    """
    words = _words(field)
    if difference is None:
        difference = _is_difference(field, words)
    units = str(field.attrs.get("units", ""))
    is_direction = "direction" in words and units.lower().startswith("deg")
    categories = () if difference or is_direction else _categories(field, words)
    return Quantity(
        is_difference=difference,
        categories=categories,
        is_direction=is_direction,
        is_patchy=bool(words & PRECIPITATION) or (not categories and _is_mostly_nothing(field)),
    )


def says_difference(field: xr.DataArray) -> bool:
    """Whether the name of a field tells its reader that it is a difference."""
    return bool(_words(field) & DIFFERENCES)


def _words(field: xr.DataArray) -> set[str]:
    named = [field.name, *(field.attrs.get(key) for key in NAMES)]
    return set(re.split(r"[^a-z]+", " ".join(str(name or "") for name in named).lower()))


def _is_difference(field: xr.DataArray, words: set[str]) -> bool:
    methods = str(field.attrs.get("cell_methods", "")).lower()
    if words & DIFFERENCES or re.search(r"\b(standard_deviation|range)\b", methods):
        return True
    if not _is_kelvin(str(field.attrs.get("units", ""))):
        return False
    finite = field.values[np.isfinite(field.values)] if field.dtype.kind in "fiu" else np.empty(0)
    if not finite.size or finite.min() >= COLDEST_K:
        return False
    if np.median(finite) < COLDEST_K:
        return True
    if finite.min() < 0:
        raise DataError(
            f"'{field.name}' has {finite.min():g} K among temperatures around "
            f"{np.median(finite):g} K: below absolute zero. Mask missing values first, with "
            f".where(field > 0); or say that these are differences, with difference=True."
        )
    return False


def _is_kelvin(units: str) -> bool:
    if "k" not in units.lower():  # as said in most spellings; saves the registry of units
        return False
    try:
        return abs(conversion(units, "degC").offset + 273.15) < 0.01
    except DataError:
        return False


def _categories(field: xr.DataArray, words: set[str]) -> tuple[tuple[float, str], ...]:
    if field.dtype.kind == "b":
        return ((0.0, "no"), (1.0, "yes"))
    meanings = str(field.attrs.get("flag_meanings", "")).split()
    flags = np.atleast_1d(field.attrs.get("flag_values", ()))
    if meanings and len(meanings) == len(flags):
        named = [(float(v), m.replace("_", " ")) for v, m in zip(flags, meanings, strict=True)]
        return tuple(sorted(named))
    stored = np.dtype(field.encoding.get("dtype", field.dtype))
    packed = "scale_factor" in field.encoding or "add_offset" in field.encoding
    counts = field.dtype.kind in "iu" or (stored.kind in "iub" and not packed)
    unitless = str(field.attrs.get("units", "")).strip().lower() in (
        *("", "1", "-", "none", "flag", "category", "index"),
    )
    if not (unitless and (counts or any(word.endswith(CATEGORIES) for word in words))):
        return ()
    found = np.unique(field.values[np.isfinite(field.values)])
    if not 0 < found.size <= MOST_CATEGORIES or (found != np.round(found)).any():
        return ()
    if set(found) <= {0.0, 1.0}:
        return ((0.0, "0"), (1.0, "1"))
    return tuple((float(value), f"{value:g}") for value in found)


def _is_mostly_nothing(field: xr.DataArray) -> bool:
    """Whether more than a quarter of a field that is never negative is exactly zero."""
    if field.dtype.kind not in "fiu":
        return False
    finite = field.values[np.isfinite(field.values)]
    return bool(finite.size and finite.min() == 0 and (finite == 0).mean() > 0.25)
