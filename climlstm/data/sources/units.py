"""Conversion of units by their names, as linear functions that a decoder can apply in one pass."""

import functools
import re
from dataclasses import dataclass
from typing import Any

from climlstm.errors import DataError

STANDARD_GRAVITY = 9.80665
"""m s-2, WMO definition of the geopotential metre; what ERA5 and WeatherBench divide by."""

WATER_DENSITY = 1000.0
"""kg m-3: 1 kg m-2 of precipitation is 1 mm deep, as ECMWF counts it."""

SPELLINGS = {
    "": "1",
    "-": "1",
    "none": "1",
    "oC": "degC",
    "mm w.e.": "mm",
    "C": "degC",
    "F": "degF",
    "kn": "knot",
    "ms-1": "m s-1",
    "ms**-1": "m s-1",
    "ms^-1": "m s-1",
    "m/s": "m s-1",
    "m of water equivalent": "m",
    "m of water": "m",
}
"""Whole spellings met in files that pint reads otherwise (C: coulomb, ms: millisecond) or not."""

DIMENSIONLESS = re.compile(
    r"\(?\s*0\s*(-|to)\s*1\s*\)?|fraction|proportion|dimensionless|unitless", re.I
)

SCALED = re.compile(r"(?:1e|10 ?\^ ?|10 ?\*\* ?)([-+]?\d+)[ *]+(.+)", re.I)
"""Units with a power of ten: 1e-5 s-1, 10^-5 s^-1."""

MONTH = re.compile(r"(?<![A-Za-z])(mon|months?)(?![A-Za-z])", re.I)

DEGREES = re.compile(
    r"(?:deg(?:rees?)?[ _.]*)?(?P<scale>cel[sc]ius|centigrade|kelvins?|fahrenheit)(?:[ _]scale)?"
    r"|deg(?:rees?)?[ _.]*(?P<letter>[ckf])\b",
    re.I,
)
"""Temperatures: degK, deg_C, degrees Celsius, Celsius_scale, Kelvins."""

WORDS = {
    "pa": "Pa",
    "pascal": "Pa",
    "hpa": "hPa",
    "hectopascal": "hPa",
    "kpa": "kPa",
    "mb": "millibar",
    "mbs": "millibar",
    "mbar": "millibar",
    "millibar": "millibar",
    "k": "K",
    "kg": "kg",
    "kilogram": "kg",
    "gram": "g",
    "gm": "g",
    "meter": "m",
    "metre": "m",
    "mtr": "m",
    "mm": "mm",
    "millimeter": "mm",
    "millimetre": "mm",
    "km": "km",
    "kilometer": "km",
    "kilometre": "km",
    "sec": "s",
    "second": "s",
    "hr": "hour",
    "hour": "hour",
    "knot": "knot",
    "kt": "knot",
    "joule": "J",
    "percent": "percent",
    "pct": "percent",
    "percentage": "percent",
    "watt": "W",
    "newton": "N",
    "gpm": "geopotential_metre",
    "gpdm": "geopotential_decametre",
    "gpdam": "geopotential_decametre",
}
"""Words that mean one unit only, whatever their case or plural."""

EQUIVALENTS = {
    "geopotential": "geopotential",
    "geopotential_height": "geopotential",
    "surface_altitude": "geopotential",
    "precipitation_amount": "water",
    "lwe_thickness_of_precipitation_amount": "water",
}
"""CF standard names of quantities that files keep in two dimensions, by a constant of nature."""


@dataclass(frozen=True)
class Conversion:
    """wanted = scale · found + offset."""

    scale: float = 1.0
    offset: float = 0.0

    @property
    def is_identity(self) -> bool:
        return self.scale == 1.0 and self.offset == 0.0


FREQUENT = {("K", "degC"): Conversion(1.0, -273.15), ("Pa", "hPa"): Conversion(0.01)}
"""Conversions of most maps, known without pint's registry, which takes half a second to make."""


@functools.lru_cache(maxsize=256)
def conversion(found: str, wanted: str, *, standard_name: str | None = None) -> Conversion:
    """How values in one unit become values in another.

    standard_name: allows height for geopotential (by standard gravity) and mass of precipitation
    for depth of water, where the quantity is one of those.
    Raises DataError for a unit that is not understood, or of another dimension.
    """
    if (found, wanted) in FREQUENT:
        return FREQUENT[found, wanted]
    if found == wanted:
        return Conversion()
    if match := SCALED.fullmatch(found.strip()):
        plain = conversion(match[2], wanted, standard_name=standard_name)
        return Conversion(_tidy(plain.scale * 10.0 ** int(match[1])), plain.offset)
    registry = _registry()
    source, target = _parse(found), _parse(wanted)
    contexts = [EQUIVALENTS[standard_name]] if standard_name in EQUIVALENTS else []
    try:
        zero, span = (
            registry.Quantity(value, source).to(target, *contexts).magnitude
            for value in (0.0, 1e6)  # a wide span, since an offset costs digits in the slope
        )
    except Exception as error:
        raise DataError(f"'{found}' cannot be converted to '{wanted}': {error}") from error
    return Conversion(scale=_tidy((span - zero) / 1e6), offset=_tidy(zero))


def require_unit(units: str) -> None:
    """Raises DataError for a unit that does not exist."""
    match = SCALED.fullmatch(units.strip())
    _parse(match[2] if match else units)


def is_time_reference(units: str) -> bool:
    """Whether a unit counts time from an epoch: 'hours since 1900-01-01'."""
    return re.match(r"\s*\w+\s+since\s+\S", units) is not None


def _parse(units: str) -> Any:
    text = units.strip()
    text = SPELLINGS.get(text) or ("1" if DIMENSIONLESS.fullmatch(text) else text)
    text = re.sub(r"(?i)geopotential[ _]?met(er|re)s?", "gpm", text)
    if MONTH.search(text):
        raise DataError(
            f"the unit '{units}' counts months, which have no fixed length. Divide the values by "
            "the days of each month first"
        )
    text = DEGREES.sub(_degrees, text.replace("º", "°"))
    text = re.sub(r"(?<=[A-Za-z])\.(?=[A-Za-z])", " ", text)  # kg.m-2
    text = re.sub(r"[A-Za-z]+", _word, text)
    text = re.sub(r"(?<=[A-Za-z])(?<!\d[eE])(?=[-+]?\d)", "**", text)  # m s-1, as CF writes powers
    try:
        return _registry().parse_units(text)
    except Exception as error:  # pint raises many kinds, tokenizer errors among them
        raise DataError(
            f"the unit '{units}' is not understood ({type(error).__name__}). "
            "Expected a spelling such as 'K', 'hPa' or 'm s-1'"
        ) from error


def _degrees(match: re.Match[str]) -> str:
    letter = (match["scale"] or match["letter"])[0].upper()
    return "K" if letter == "K" else "degC" if letter == "C" else "degF"


def _word(match: re.Match[str]) -> str:
    word = match[0]
    if len(word) == 1 and word not in ("k", "K"):
        return word  # m and M, s and S are different units
    lower = word.lower()
    return WORDS.get(lower) or WORDS.get(lower.removesuffix("s")) or word


@functools.cache
def _registry() -> Any:
    """Our own registry, made when first needed (0.3 s); pint's shared one is left alone."""
    import pint

    registry: Any = pint.UnitRegistry(autoconvert_offset_to_baseunit=True)
    registry.define(f"geopotential_metre = {STANDARD_GRAVITY} * meter ** 2 / second ** 2")
    registry.define("geopotential_decametre = 10 * geopotential_metre")
    geopotential: Any = pint.Context("geopotential")
    gravity = STANDARD_GRAVITY * registry.meter / registry.second**2
    geopotential.add_transformation(
        "[length]", "[length] ** 2 / [time] ** 2", lambda _, height: height * gravity
    )
    geopotential.add_transformation(
        "[length] ** 2 / [time] ** 2", "[length]", lambda _, energy: energy / gravity
    )
    registry.add_context(geopotential)
    water: Any = pint.Context("water")
    density = WATER_DENSITY * registry.kilogram / registry.meter**3
    water.add_transformation("[mass] / [length] ** 2", "[length]", lambda _, mass: mass / density)
    water.add_transformation("[length]", "[mass] / [length] ** 2", lambda _, depth: depth * density)
    registry.add_context(water)
    return registry


def _tidy(number: float) -> float:
    """Without the rounding noise of pint's arithmetic: 273.15, not 273.15000000000003."""
    return float(f"{number:.12g}")
