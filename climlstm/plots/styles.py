"""How a field is shown: which variable it is, its units for people, colours, limits and titles."""

import dataclasses
import logging
import re
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import cftime
import numpy as np
import pandas as pd
import xarray as xr
from matplotlib.colors import Colormap

from climlstm import plugins
from climlstm.calendars import are_times, time_text
from climlstm.data.knowledge import label_of
from climlstm.data.sources.units import Conversion, conversion
from climlstm.errors import DataError, PluginError
from climlstm.plots.colours import Colours, Levels, Limits, colours_of
from climlstm.plots.quantity import NAMES, Quantity, quantity_of, says_difference
from climlstm.plugins import Style, Variable
from climlstm.plugins.channels import Channel
from climlstm.plugins.channels import channel as channel_of
from climlstm.steps import as_times, lead_text, valid_time

logger = logging.getLogger(__name__)

_READABLE_UNITS = {"K": "degC", "Pa": "hPa"}
"""Display units of variables that no plugin describes."""

_UNIT_WORDS = {
    "1": "", "-": "", "degc": "°C", "deg_c": "°C", "celsius": "°C", "degrees_celsius": "°C",
    "degree_celsius": "°C", "degf": "°F", "fahrenheit": "°F", "kelvin": "K", "gpdm": "dam",
    "gpm": "m", "knot": "kt", "knots": "kt", "percent": "%", "degrees": "°", "degree true": "°",
    "degrees_north": "° north", "degrees_east": "° east",
}  # fmt: skip

SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


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
    limits: Limits | None
    """Usual ends of the colour scale, display unit."""
    contour_interval: float | None
    is_given: bool = False
    """Whether colour map and limits were asked for, and hold whatever the values are."""
    quantity: Quantity = dataclasses.field(default_factory=Quantity)

    def values(self, field: xr.DataArray) -> np.ndarray:
        """The field in the display unit, float64."""
        return field.values.astype("float64") * self.conversion.scale + self.conversion.offset

    def differences(self, field: xr.DataArray) -> np.ndarray:
        """Differences of two fields in the display unit: 1 K is 1 °C then."""
        return field.values.astype("float64") * self.conversion.scale

    def colours(
        self,
        values: np.ndarray,
        *,
        limits: Limits | None = None,
        levels: Levels | None = None,
        cmap: str | Colormap | None = None,
    ) -> Colours:
        """The colour scale for values in the display unit; see `colours_of`."""
        found = colours_of(
            values, self.quantity, usual=self.limits, cmap=self.colormap,
            limits=limits or (self.limits if self.is_given else None), levels=levels,
            given_cmap=cmap or (self.colormap if self.is_given else None),
        )  # fmt: skip
        return replace(found, note=f"{found.note} {self.units}") if "where" in found.note else found

    @property
    def error_units(self) -> str:
        """The unit of differences: kelvin, since a difference of 1 °C is no temperature."""
        return "K" if self.units == "°C" else self.units

    @property
    def error_label(self) -> str:
        return f"Error ({self.error_units})" if self.units else "Error"

    @property
    def label_with_units(self) -> str:
        return f"{self.label} ({self.units})" if self.units else self.label


def look_of(
    field: xr.DataArray,
    *,
    style: Style | None = None,
    units: str | None = None,
    difference: bool | None = None,
) -> Look:
    """The look of a field by its name, its CF attributes, or a style of one's own.

    units: display unit instead of that of the style.
    difference: whether the field is a difference or spread, which no offset must be added to;
    found from its attributes and values, if not given.
    A field without the attribute `units` is drawn in the numbers that it has: nothing is assumed.
    Raises DataError where the display unit does not fit the field's units.
    """
    known = known_as(field)
    variable = known.variable if known else None
    own = str(field.attrs.get("units", "")).strip()
    usual = variable.style if variable else Style()
    chosen = style or (usual if own else Style(colormap=usual.colormap))
    own_wish = chosen.units or (variable.units if variable and own and not style else None)
    wanted = units or own_wish or _READABLE_UNITS.get(own, own)
    standard_name = field.attrs.get("standard_name") or (variable and variable.standard_name)
    try:
        to_display = conversion(own, wanted, standard_name=standard_name)
    except DataError as error:
        raise DataError(
            f"'{field.name}' cannot be drawn: {error}. Correct its attribute 'units', "
            "or give a style with units that fit."
        ) from error
    quantity = replace(
        quantity_of(field, difference=difference),
        is_component=_is_component(field, variable, to_display),
    )
    if quantity.categories:  # `t2m > 280` is in no unit, although it has kept that of t2m
        to_display, wanted = Conversion(), ""
    label, shown = _label(field, known), readable_units(wanted)
    if quantity.is_difference:
        to_display, shown = Conversion(to_display.scale), "K" if shown == "°C" else shown
        if not says_difference(field):
            label += ", difference" if float(field.min()) < 0 else ", difference or spread"
    elif quantity.is_component and not field.encoding and float(field.min()) >= 0:
        # np.hypot(u, v) keeps the name of u; only what is as a file holds it has an encoding
        label += " or speed" if "wind" in label.lower() else " or its size"
    else_in = units is not None and units != own_wish
    return Look(
        label=label,
        units=shown,
        conversion=to_display,
        colormap=chosen.colormap,
        limits=None if else_in and style is None else chosen.limits,
        contour_interval=None if else_in else chosen.contour_interval,
        is_given=style is not None,
        quantity=quantity,
    )


def _is_component(field: xr.DataArray, known: Variable | None, change: Conversion) -> bool:
    """Whether a field is named as a component of a vector, or is as often negative as positive."""
    low, high = (known and known.style.limits) or (0.0, 1.0)
    said = " ".join(str(field.attrs.get(key, "")) for key in NAMES).lower()
    words = r"\b(eastward|northward|[uvxy])[_ ](component|.*(wind|current|velocity))"
    return low == -high and not change.offset if known else bool(re.search(words, said))


def look_of_channel(name: str, units: str | None) -> Look:
    """The look of scores of a channel, by its name, for numbers in some unit; None: its own.

    Scores are differences or their sizes: a factor converts them, and 1 °C is written as 1 K.
    Numbers without a unit ('1': correlations, ratios) stay as they are.
    """
    field = xr.DataArray(-1.0, name=name)  # of no kind: neither a size nor nothing
    known = known_as(field)
    own = known.variable.units if known else ""
    field.attrs["units"] = own if units is None else units
    look = look_of(field, style=Style() if units == "1" else None, difference=False)
    return replace(look, units=look.error_units, conversion=Conversion(look.conversion.scale))


def known_as(field: xr.DataArray) -> Channel | None:
    """The variable and level that a field is, by our name for it or one of those in files."""
    name, level = str(field.name), _level(field)
    channel = _channel(name if level is None else f"{name}{level:g}")
    if level is not None and (channel is None or channel.level != level):
        channel = _channel(name)  # 'u100' at 100 hPa would be the wind at 100 m
    if channel is not None:
        return channel
    for variable in _built_in():
        names = (variable.name, variable.era5_name, *variable.aliases)
        if name in names and variable.on_levels == (level is not None) and name not in _AMBIGUOUS:
            return Channel(name, variable, level)
    return None


_AMBIGUOUS = ("z",)
"""Names that files give to two variables, so that a label by name alone may lie: without a level,
z is the geopotential of the surface in one file and that of 500 hPa in the next."""


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
    for key in NAMES:
        if field.attrs.get(key):
            return str(field.attrs[key]).replace("_", " ")
    return str(field.name or "field").replace("_", " ")


def _capitalised(name: str) -> str:
    """A name as a title begins; one that a file shouts (WRF) in small letters."""
    said = name.lower() if name.isupper() and len(name) > 12 else name
    return said[:1].upper() + said[1:]


def readable_units(units: str) -> str:
    """'°C' for 'degC', 'm s⁻¹' for 'm s-1' or 'm s**-1', '' for '1'."""
    text = _UNIT_WORDS.get(units.lower(), units)
    raised = re.compile(r"(?<=[A-Za-z])(?:\*\*|\^)?[({]?(-?\d+)[)}]?")  # WRF has 'W m{-2}'
    return raised.sub(lambda m: m[1].translate(SUPERSCRIPTS), text).replace("*", " ")


def lead_label(lead_time: Any) -> str:
    """'+36 h', '+3 months'"""
    return f"+{lead_text(lead_time)}"


def time_label(time: Any, *, months: bool = False) -> str:
    """'Mon 1 Aug 2022 00 UTC', 'August 2022' of months; without weekdays in other calendars."""
    moment = as_times(time).item() if isinstance(time, np.ndarray) else time
    if months:
        return time_text(moment, months=True)
    if isinstance(moment, cftime.datetime):
        return f"{moment.day} {moment.strftime('%b %Y %H')} UTC"
    stamp = pd.Timestamp(time)
    clock = f"{stamp:%H}" if stamp.minute == 0 else f"{stamp:%H:%M}"
    return f"{stamp:%a} {stamp.day} {stamp:%b %Y} {clock} UTC"


def init_label(time: Any, lead_time: Any) -> str:
    """A start as `time_label`, of months where the lead time counts them."""
    return time_label(time, months=np.asarray(lead_time).dtype.kind in "iu")


def start_label(field: xr.DataArray) -> str:
    """'from Mon 1 Aug 2022 00 UTC', and what the forecast was allowed to know of the future."""
    start = f"from {init_label(field.init_time.values, field.lead_time.values)}"
    return " ".join([start, label_of(field)]).strip()


def valid_label(init_time: Any, lead_time: Any) -> str:
    """'+36 h, valid Mon 1 Aug 2022 12 UTC', '+3 months, valid March 1998'."""
    valid = valid_time(init_time, lead_time)
    return f"{lead_label(lead_time)}, valid {init_label(valid, lead_time)}"


def times_label(field: xr.DataArray) -> str:
    """Initialisation, lead and valid time of a forecast field, or the time of an analysed one."""
    times = {
        name: field[name].values
        for name in _TIMES
        if name in field.coords and field[name].ndim == 0
    }
    if "init_time" in times and "lead_time" in times:
        start, lead = times["init_time"], times["lead_time"]
        return f"{valid_label(start, lead)}\n{start_label(field)}"
    for name in ("valid_time", "time", "init_time"):
        if name in times and are_times(times[name]):
            return time_label(times[name])
    return ""


_TIMES = ("init_time", "lead_time", "valid_time", "time")
