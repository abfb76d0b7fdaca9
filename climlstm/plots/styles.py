"""How a field is shown: which variable it is, its units for people, colours, limits and titles."""

import logging
import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from matplotlib.colors import Normalize

from climlstm import plugins
from climlstm.data.sources.units import Conversion, conversion
from climlstm.errors import DataError, PluginError
from climlstm.plugins import Style, Variable
from climlstm.plugins.channels import Channel
from climlstm.plugins.channels import channel as channel_of

logger = logging.getLogger(__name__)

ERROR_COLORMAP = "RdBu_r"
"""White where the forecast is right, red where it is too high."""

MISSING_COLOUR = "#d9d9d9"

_READABLE_UNITS = {"K": "degC", "Pa": "hPa"}
"""Display units of variables that no plugin describes."""

_UNIT_WORDS = {"1": "", "degC": "°C", "celsius": "°C", "gpdm": "dam", "gpm": "m", "knot": "kt"}

_NARROW = 0.4
"""Share of the usual limits below which a field is given a colour scale of its own."""

_SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


@dataclass(frozen=True)
class Look:
    """Everything that turns numbers of one field into colours and words."""

    label: str
    """'500 hPa geopotential'"""
    units: str
    """Display unit as people write it: '°C', 'm s⁻¹'."""
    conversion: Conversion
    """From the unit of the field to the display unit."""
    colormap: str
    limits: tuple[float, float] | None
    """Ends of the colour scale, display unit; from the data where None."""
    contour_interval: float | None
    may_narrow: bool = False
    """Whether `limits` are only the usual ones, and a field that needs few of them gets its own."""

    def values(self, field: xr.DataArray) -> np.ndarray:
        """The field in the display unit, float64."""
        return field.values.astype("float64") * self.conversion.scale + self.conversion.offset

    def differences(self, field: xr.DataArray) -> np.ndarray:
        """Differences of two fields in the display unit: 1 K is 1 °C then."""
        return field.values.astype("float64") * self.conversion.scale

    def norm(self, values: np.ndarray) -> Normalize:
        """The colour scale for these values: the limits, or round numbers just around the values.

        A scale that is symmetric about zero stays so for values of both signs.
        """
        low, high = round_limits(values)
        if self.limits is None:
            return Normalize(low, high)
        usual_low, usual_high = self.limits
        if not self.may_narrow or high - low > _NARROW * (usual_high - usual_low):
            return Normalize(usual_low, usual_high)
        if usual_low == -usual_high and low < 0 < high:
            low, high = -max(-low, high), max(-low, high)
        return Normalize(low, high)

    @property
    def label_with_units(self) -> str:
        return f"{self.label} ({self.units})" if self.units else self.label


def look_of(field: xr.DataArray, *, style: Style | None = None) -> Look:
    """The look of a field by its name, its CF attributes, or a style of one's own.

    A field without the attribute `units` is drawn in the numbers that it has: nothing is assumed.
    Raises DataError where the display unit does not fit the field's units.
    """
    known = known_as(field)
    variable = known.variable if known else None
    units = str(field.attrs.get("units", "")).strip()
    usual = variable.style if variable else Style()
    chosen = style or (usual if units else Style(colormap=usual.colormap))
    wanted = chosen.units or _READABLE_UNITS.get(units, units)
    standard_name = field.attrs.get("standard_name") or (variable and variable.standard_name)
    try:
        to_display = conversion(units, wanted, standard_name=standard_name)
    except DataError as error:
        raise DataError(
            f"'{field.name}' cannot be drawn: {error}. Correct its attribute 'units', "
            "or give a style with units that fit."
        ) from error
    return Look(
        label=_label(field, known),
        units=readable_units(wanted),
        conversion=to_display,
        colormap=chosen.colormap,
        limits=chosen.limits,
        contour_interval=chosen.contour_interval,
        may_narrow=style is None,
    )


def look_of_channel(name: str, units: str | None) -> Look:
    """The look of a channel by its name, for numbers in some unit; None: the channel's own.

    Numbers without a unit ('1': correlations, ratios) stay as they are.
    """
    field = xr.DataArray(0.0, name=name)
    known = known_as(field)
    own = known.variable.units if known else ""
    field.attrs["units"] = own if units is None else units
    return look_of(field, style=Style() if units == "1" else None)


def known_as(field: xr.DataArray) -> Channel | None:
    """The variable and level that a field is, by our name for it or one of those in files."""
    name, level = str(field.name), _level(field)
    channel = _channel(name) if level is None else _channel(f"{name}{level:g}") or _channel(name)
    if channel is not None:
        return channel
    for variable in _built_in():
        names = (variable.name, variable.era5_name, *variable.aliases)
        if name in names and variable.on_levels == (level is not None):
            return Channel(name, variable, level)
    return None


def _level(field: xr.DataArray) -> float | None:
    """The pressure level that a field was selected at, hPa."""
    for name in ("level", "pressure_level", "isobaricInhPa", "plev"):
        if name in field.coords and field[name].ndim == 0:
            in_pascal = field[name].attrs.get("units") == "Pa"
            return float(field[name]) / (100 if in_pascal else 1)
    return None


@lru_cache(maxsize=64)
def _channel(name: str) -> Channel | None:
    """A channel by our name; None for one that no plugin knows, which is drawn plainly."""
    try:
        return channel_of(name)
    except PluginError as error:
        logger.debug("'%s' is drawn by its attributes: %s", name, error)
        return None


@lru_cache(maxsize=1)
def _built_in() -> tuple[Variable, ...]:
    found = plugins.discover("variables")
    ours = [plugin.name for plugin in found if plugin.distribution == plugins.BUILT_IN]
    return tuple(plugins.load("variables", f"{plugins.BUILT_IN}:{name}") for name in ours)


def _label(field: xr.DataArray, known: Channel | None) -> str:
    """'2 m temperature', '500 hPa geopotential', or what the field calls itself."""
    if known is None:
        return _capitalised(_words(field))
    name = known.variable.long_name
    return name if known.level is None else f"{known.level:g} hPa {name[:1].lower()}{name[1:]}"


def _words(field: xr.DataArray) -> str:
    """Long name, standard name or name of a field, whichever it has."""
    for key in ("long_name", "standard_name"):
        if field.attrs.get(key):
            return str(field.attrs[key]).replace("_", " ")
    return str(field.name or "field").replace("_", " ")


def _capitalised(name: str) -> str:
    return name[:1].upper() + name[1:]


def readable_units(units: str) -> str:
    """'°C' for 'degC', 'm s⁻¹' for 'm s-1' or 'm s**-1', '' for '1'."""
    text = _UNIT_WORDS.get(units, units)
    return re.sub(
        r"(?<=[A-Za-z])(?:\*\*|\^)?(-?\d+)", lambda m: m[1].translate(_SUPERSCRIPTS), text
    ).replace("*", " ")


def round_limits(values: np.ndarray) -> tuple[float, float]:
    """Round numbers just outside the finite values."""
    finite = values[np.isfinite(values)]
    if finite.size == 0:
        return 0.0, 1.0
    low, high = float(finite.min()), float(finite.max())
    if high - low <= 1e-12 * max(abs(low), abs(high), 1e-300):
        margin = 0.5 * abs(low) or 0.5
        return low - margin, high + margin
    step = round_up((high - low) / 10)
    return float(np.floor(low / step) * step), float(np.ceil(high / step) * step)


def symmetric_limit(errors: np.ndarray) -> float:
    """A round number that 99.5 of 100 errors stay below, the same for both signs."""
    size = np.abs(errors[np.isfinite(errors)])
    return round_up(float(np.quantile(size, 0.995))) if size.size and size.max() > 0 else 1.0


def round_up(number: float) -> float:
    """The next of 1, 1.5, 2, 2.5, 3, 4, 5, 6, 8 times a power of ten."""
    power = 10.0 ** np.floor(np.log10(number))
    steps = np.array([1, 1.5, 2, 2.5, 3, 4, 5, 6, 8, 10])
    return float(f"{steps[np.searchsorted(steps, number / power - 1e-9)] * power:.6g}")


def lead_label(lead_time: Any) -> str:
    """'+36 h'"""
    return f"+{pd.Timedelta(lead_time) / pd.Timedelta(hours=1):g} h"


def time_label(time: Any) -> str:
    """'Mon 1 Aug 2022 00 UTC'"""
    stamp = pd.Timestamp(time)
    clock = f"{stamp:%H}" if stamp.minute == 0 else f"{stamp:%H:%M}"
    return f"{stamp:%a} {stamp.day} {stamp:%b %Y} {clock} UTC"


def times_label(field: xr.DataArray) -> str:
    """Initialisation, lead and valid time of a forecast field, or the time of an analysed one."""
    times = {
        name: field[name].values
        for name in _TIMES
        if name in field.coords and field[name].ndim == 0
    }
    if "init_time" in times and "lead_time" in times:
        valid = times["init_time"] + times["lead_time"]
        return (
            f"{lead_label(times['lead_time'])}, valid {time_label(valid)}\n"
            f"from {time_label(times['init_time'])}"
        )
    for name in ("valid_time", "time", "init_time"):
        if name in times and np.issubdtype(times[name].dtype, np.datetime64):
            return time_label(times[name])
    return ""


_TIMES = ("init_time", "lead_time", "valid_time", "time")
