"""Forcings: what follows from time and place alone, so it cannot leak the future.

All times are UTC, longitudes degrees east, and every field lies within -1..1, so that forcings need
no normalisation.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from climlstm.calendars import Times, civil_times, month_of_year, year_share
from climlstm.errors import DataError, nearest
from climlstm.steps import as_times

CHANNELS: dict[str, tuple[str, ...]] = {
    "cos_zenith": ("cos_zenith",),
    "season": ("season_sin", "season_cos"),
    "day": ("day_sin", "day_cos"),
}
"""Each forcing of a run file and the fields that it gives the network."""

NEEDS_PLACE = ("cos_zenith", "day")
"""Forcings that follow from the place on Earth; others follow from the date alone."""

J2000 = np.datetime64("2000-01-01T12:00:00", "s")


def forcing_channels(names: Sequence[str]) -> tuple[str, ...]:
    """Names of the fields that the forcings give, in order."""
    for name in names:
        if name not in CHANNELS:
            raise DataError(
                f"There is no forcing '{name}'.{nearest(name, CHANNELS)} "
                f"Known: {', '.join(CHANNELS)}."
            )
    return tuple(field for name in names for field in CHANNELS[name])


def forcings_of(fields: Sequence[str]) -> tuple[str, ...]:
    """The forcings of a run file that give these fields: `forcing_channels` read backwards."""
    names = {given[0]: name for name, given in CHANNELS.items()}
    return tuple(names[field] for field in fields if field in names)


def forcing_fields(
    names: Sequence[str],
    times: ArrayLike,
    latitude: ArrayLike,
    longitude: ArrayLike,
    *,
    months: int = 0,
) -> NDArray[np.float32]:
    """Forcings (time, F, latitude, longitude), in the order of `forcing_channels(names)`.

    times: datetime64 or cftime, UTC; latitude, longitude: degrees north and east, 1-D, or in shapes
        that broadcast to the grid's.
    months: calendar months that a time stands for; 0: it is a moment.

    `cos_zenith` is the cosine of the sun's zenith angle at that instant, negative at night.
    `season` is sine and cosine of the elapsed part of the year in the calendar of the times, to the
    middle of what a time stands for: (month - 1/2) / 12. `day` is that of the mean solar
    time (UTC + longitude / 15° h). At the start of the year, and at midnight, both are (0, 1).
    """
    fields = forcing_channels(names)
    moments = np.atleast_1d(as_times(times))
    real = civil_times(moments).astype("datetime64[s]")
    phi, lam = np.asarray(latitude, dtype="float64"), np.asarray(longitude, dtype="float64")
    if phi.ndim < 2:
        phi, lam = np.atleast_1d(phi)[:, None], np.atleast_1d(lam)[None]
    shape = np.broadcast_shapes(phi.shape, lam.shape)
    out = np.empty((moments.size, len(fields), *shape), dtype="float32")
    for index, field in enumerate(fields):
        if field == "cos_zenith":
            out[:, index] = cos_zenith(real, phi, lam)
            continue
        season = field.startswith("season")
        angle = _season_angle(moments, months)[:, None, None] if season else _day(real, lam)
        out[:, index] = np.sin(angle) if field.endswith("sin") else np.cos(angle)
    return out


def cos_zenith(
    times: NDArray[np.datetime64], latitude: NDArray[np.float64], longitude: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Cosine of the solar zenith angle (time, H, W), instantaneous.

    latitude, longitude: degrees, in shapes that broadcast to (H, W).

    Sun's position by the low-precision formulas of the Astronomical Almanac as given by Michalsky
    (1988, Solar Energy 40, 227-235, eqs 1-10): within 0.01° from 1950 to 2050, and obliquity,
    declination and equation of time are all in it. Refraction is left out.
    """
    days = (times - J2000) / np.timedelta64(86400, "s")
    mean_longitude = np.deg2rad((280.460 + 0.9856474 * days) % 360)
    anomaly = np.deg2rad((357.528 + 0.9856003 * days) % 360)
    ecliptic = mean_longitude + np.deg2rad(1.915 * np.sin(anomaly) + 0.020 * np.sin(2 * anomaly))
    obliquity = np.deg2rad(23.439 - 4e-7 * days)
    right_ascension = np.arctan2(np.cos(obliquity) * np.sin(ecliptic), np.cos(ecliptic))
    declination = np.arcsin(np.sin(obliquity) * np.sin(ecliptic))[:, None, None]
    sidereal_hours = (6.697375 + 0.0657098242 * days + _hours(times)) % 24
    greenwich = np.deg2rad(15 * sidereal_hours) - right_ascension
    hour_angle = greenwich[:, None, None] + np.deg2rad(longitude)[None]
    phi = np.deg2rad(latitude)[None]
    return np.sin(phi) * np.sin(declination) + np.cos(phi) * np.cos(declination) * np.cos(
        hour_angle
    )


def _season_angle(moments: Times, months: int) -> NDArray[np.float64]:
    """Elapsed part of the year as an angle, in the calendar of the times."""
    if months:
        return 2 * np.pi * (month_of_year(moments) - 1 + months / 2) / 12
    if moments.dtype.kind != "M":
        return 2 * np.pi * year_share(moments)
    times = moments.astype("datetime64[s]")
    year = times.astype("datetime64[Y]")
    start = year.astype("datetime64[s]")
    length = (year + np.timedelta64(1, "Y")).astype("datetime64[s]") - start
    return 2 * np.pi * ((times - start) / length)


def _day(times: NDArray[np.datetime64], longitude: NDArray[np.float64]) -> NDArray[np.float64]:
    return 2 * np.pi * (_hours(times)[:, None, None] / 24 + longitude[None] / 360)


def _hours(times: NDArray[np.datetime64]) -> NDArray[np.float64]:
    """Hours since midnight UTC."""
    return (times - times.astype("datetime64[D]")) / np.timedelta64(1, "h")
