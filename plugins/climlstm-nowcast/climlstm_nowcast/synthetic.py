"""Synthetic rain: cells that move, grow, merge and decay, as long a film of them as is asked for.

Cells are born by chance, more often in a band that drifts over the domain; each is an ellipse whose
rain first grows and then decays (the life of a cell; Byers and Braham 1949, The Thunderstorm), and
all are carried by a steady flow with shear and rotation. While a cell grows its area and its peak
grow, so that two frames tell which cells will be stronger in half an hour: what advection cannot.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import NDArray

from climlstm_nowcast.variables import RAIN_RATE

Real = NDArray[np.float64]


@dataclass(frozen=True)
class Rain:
    """The look of the film; the same for training and for scoring."""

    size: int = 64
    """Cells along each side of the domain."""
    cell_km: float = 2.0
    step: str = "6min"
    life: float = 20.0
    """Mean life of a rain cell, in steps."""
    cells: float = 12.0
    """Rain cells that live at one time, on average."""
    speed: float = 1.0
    """Mean motion, grid cells a step."""


def rain_film(steps: int, rain: Rain | None = None, *, seed: int = 0) -> xr.Dataset:
    """`rain_rate` (time, y, x) in mm/h on a plane of metres (a transverse Mercator projection).

    Beside it, `age` and `life` in steps of the cell that rains most at each place, 0 where none
    does: it grows up to half its life.
    steps: number of frames. The same seed gives the same film.
    """
    rain = rain or Rain()
    generator = np.random.default_rng(seed)
    start = -int(3 * rain.life)  # so that the first frame is like any other
    births = generator.poisson(rain.cells / rain.life * 2, size=steps - start)
    frames, most, age, life = (np.zeros((steps, rain.size, rain.size), "float32") for _ in range(4))
    for time, number in enumerate(births, start=start):
        for _ in range(number):
            for at, where, falls, lived in _life_of(time, steps, rain, generator):
                frames[(at, *where)] += falls
                first = falls > most[(at, *where)]
                for field, value in ((most, falls), (age, lived[0]), (life, lived[1])):
                    field[(at, *where)] = np.where(first, value, field[(at, *where)])
    frames[frames < 0.1] = 0
    half = (np.arange(rain.size) - (rain.size - 1) / 2) * rain.cell_km * 1000
    known = {"units": RAIN_RATE.units, "long_name": RAIN_RATE.long_name, "grid_mapping": "crs"}
    mapping = {
        "grid_mapping_name": "transverse_mercator", "latitude_of_projection_origin": 50.0,
        "longitude_of_central_meridian": 10.0, "scale_factor_at_central_meridian": 1.0,
        "false_easting": 0.0, "false_northing": 0.0, "earth_radius": 6371000.0,
    }  # fmt: skip
    dims, lived = ("time", "y", "x"), {"units": "1", "grid_mapping": "crs"}
    return xr.Dataset(
        {
            "rain_rate": (dims, frames, known),
            "age": (dims, age.astype("int16"), lived),
            "life": (dims, life.astype("int16"), lived),
            "crs": ((), np.int8(0), mapping),
        },
        coords={
            "time": pd.date_range("2001-01-01", periods=steps, freq=rain.step),
            "y": (
                "y",
                half[::-1].copy(),
                {"units": "m", "standard_name": "projection_y_coordinate"},
            ),
            "x": ("x", half, {"units": "m", "standard_name": "projection_x_coordinate"}),
        },
    )


def _life_of(
    born: int, steps: int, rain: Rain, generator: np.random.Generator
) -> Iterator[tuple[int, tuple[slice, slice], Real, tuple[int, int]]]:
    """One cell, frame by frame: number of the frame, rows and columns, rain there, age and life."""
    size = rain.size
    life = max(4, int(generator.gamma(6.0, rain.life / 6.0)))
    row, column = generator.uniform(-0.3 * size, 1.3 * size, 2)
    peak, width = generator.lognormal(2.0, 0.6), generator.uniform(1.5, 3.5)
    stretch, angle = generator.uniform(1.0, 2.0), generator.uniform(0, np.pi)
    along, down = np.cos(angle), np.sin(angle)
    rows, columns = np.indices((size, size), dtype="float32")
    for age in range(life):
        middle = size / 2
        row += rain.speed * (0.4 + 0.6 * (column - middle) / size)
        column += rain.speed * (1.0 - 0.6 * (row - middle) / size)
        time = born + age
        if not 0 <= time < steps:
            continue
        strength = np.sin(np.pi * (age + 0.5) / life)  # grows, then decays
        spread = width * (0.6 + 0.8 * strength)
        low, high = (int(v) for v in np.clip([row - 8 * spread, row + 8 * spread], 0, size))
        left, right = (int(v) for v in np.clip([column - 8 * spread, column + 8 * spread], 0, size))
        if low >= high or left >= right:
            continue
        where = (slice(low, high), slice(left, right))
        dy, dx = rows[where] - row, columns[where] - column
        a, b = (along * dx + down * dy) / stretch, along * dy - down * dx
        falls = peak * strength**2 * np.exp(-(a * a + b * b) / (2 * spread**2))
        yield time, where, falls, (age, life)
