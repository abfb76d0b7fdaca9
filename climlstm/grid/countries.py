"""Countries of Natural Earth at 1:50 million, as places: `country:france`, `country:FRA`.

Public domain. `countries.npz` is made by tests/pack_natural_earth.py from the npm package
world-atlas 2.0.2 (Natural Earth 4.1.0), points to a hundredth of a degree; a country has all its
parts, those beyond the seas, too. Names are Natural Earth's and those of ISO 3166, with its codes
of three letters.
"""

import functools
import re
import unicodedata
from collections.abc import Mapping
from importlib import resources

import numpy as np
from numpy.typing import NDArray

from climlstm.errors import DataError, nearest
from climlstm.grid.distances import wrap_longitude

Rings = list[NDArray[np.float64]]
"""Closed lines (points, 2) of longitude and latitude in degrees; holes among them."""


@functools.cache
def _packed() -> Mapping[str, NDArray]:
    """Arrays of the file: differences of points, where rings begin, whose they are, names."""
    with resources.files("climlstm.grid").joinpath("countries.npz").open("rb") as file:
        return dict(np.load(file))


def _key(name: str) -> str:
    plain = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode().lower()
    return re.sub(r"\W+", "_", plain).strip("_")


def country_rings(name: str) -> Rings:
    """Outlines of a country, by name or code, the largest first.

    Raises DataError for an unknown one, with the nearest.
    """
    packed = _packed()
    known = {_key(n): int(i) for n, i in zip(packed["names"], packed["numbers"], strict=True)}
    number = known.get(_key(name))
    if number is None:
        raise DataError(
            f"There is no country '{name}'.{nearest(_key(name), known)} Names are those of Natural "
            "Earth and of ISO 3166, or its codes of three letters: 'country:new_zealand', "
            "'country:NZL'."
        )
    points = np.cumsum(packed["steps"], axis=0, dtype="int16") / 100
    rings = np.split(points, packed["starts"][1:])
    found = zip(rings, packed["countries"], strict=True)
    own = [_unrolled(ring) for ring, country in found if country == number]
    return sorted(own, key=_size, reverse=True)


def _unrolled(ring: NDArray[np.float64]) -> NDArray[np.float64]:
    """A ring without jumps at the 180th meridian; one around a pole goes to the pole and back."""
    x, y = np.unwrap(ring[:, 0], period=360), ring[:, 1]
    if abs(x[-1] - x[0]) > 1:
        pole = np.copysign(90.0, y.mean())
        x, y = np.r_[x, x[-1], x[0], x[0]], np.r_[y, pole, pole, y[0]]
    return np.column_stack([x, y])


def _size(ring: NDArray[np.float64]) -> float:
    """About the area of a ring."""
    x, y = ring.T
    return float(abs(np.sum(x[:-1] * y[1:] - x[1:] * y[:-1])) * np.cos(np.deg2rad(y.mean())))


def in_country(name: str, phi: NDArray, lam: NDArray) -> NDArray[np.bool_]:
    """Whether points lie in a country: row by row, by the number of outlines west of them, in this
    turn of the globe and its neighbours.

    phi, lam: latitude and longitude in degrees, of one shape.
    """
    edges = np.concatenate([np.hstack([ring[:-1], ring[1:]]) for ring in country_rings(name)])
    x0, y0, x1, y1 = edges[edges[:, 1] != edges[:, 3]].T
    turns = np.asarray(wrap_longitude(lam)).ravel()[:, None] + [-360.0, 0.0, 360.0]
    inside = np.zeros(phi.size, dtype=bool)
    order = np.argsort(phi, axis=None)
    latitudes, first = np.unique(phi.ravel()[order], return_index=True)
    for latitude, here in zip(latitudes, np.split(order, first[1:]), strict=True):
        crossing = (y0 <= latitude) != (y1 <= latitude)
        share = (latitude - y0[crossing]) / (y1[crossing] - y0[crossing])
        west = np.sort(x0[crossing] + share * (x1[crossing] - x0[crossing]))
        inside[here] = np.searchsorted(west, turns[here]).sum(axis=1) % 2 == 1
    return inside.reshape(phi.shape)
