"""How long does a map take, and is it right? Ours beside plain cartopy calls.

A global field of lows and highs is drawn to a PNG by `climlstm.plots.plot_field`, with coasts,
colour bar and titles, and by `pcolormesh`, `contourf` and `imshow` on a bare cartopy map of the
same size. Right are those of many places on Earth whose pixel has the colour of the value there.

    python benchmarks/maps.py [--quick] [--json FILE]
"""

import argparse
import io
import json
import time
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path

import cartopy.crs as ccrs
import matplotlib
import numpy as np
import xarray as xr
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

from climlstm.plots import plot_field
from climlstm.plots.overlays import is_on_map
from climlstm.plots.projections import GLOBE, view
from climlstm.plots.sheet import image_of, new_sheet
from climlstm.plugins import Style

STYLE = Style(colormap="viridis", limits=(-1, 1))
PROJECTIONS: dict[str, ccrs.Projection] = {
    "platecarree": ccrs.PlateCarree(),
    "robinson": ccrs.Robinson(180),
    "orthographic": ccrs.Orthographic(170, 50),
}
OURS = "climlstm"


def errors(longitude: np.ndarray, latitude: np.ndarray) -> np.ndarray:
    """Like errors of a forecast: none in the tropics, closed lobes of both signs elsewhere."""
    lam, phi = np.deg2rad(longitude), np.deg2rad(latitude)
    storm_track = np.exp(-(((np.abs(latitude) - 50) / 14) ** 2))
    return 0.95 * storm_track * np.sin(6 * lam + 2 * phi) * np.cos(lam / 2 + np.sign(latitude)) ** 2


def global_field(spacing: float) -> xr.DataArray:
    latitude = np.linspace(90, -90, round(180 / spacing) + 1)
    longitude = spacing * np.arange(round(360 / spacing))
    values = errors(longitude[None, :], latitude[:, None]).astype("float32")
    coordinates = {"latitude": latitude, "longitude": longitude}
    return xr.DataArray(values, coordinates, ("latitude", "longitude"), name="error")


def draw_ours(field: xr.DataArray, projection: ccrs.Projection) -> Figure:
    figure = plot_field(field, projection=projection, region="global", style=STYLE)
    assert isinstance(figure, Figure)
    return figure


def plain(method: str) -> Callable[[xr.DataArray, ccrs.Projection], Figure]:
    """The same field by one cartopy call, as its gallery shows it."""

    def draw(field: xr.DataArray, projection: ccrs.Projection) -> Figure:
        sheet = new_sheet(view(GLOBE, projection=projection, region="global"), bars=())
        ax = sheet.maps[0][0]
        norm = Normalize(-1, 1)
        options = {"transform": ccrs.PlateCarree(), "cmap": STYLE.colormap, "norm": norm}
        if method == "imshow":
            half = 180 / (field.latitude.size - 1) / 2
            extent = (-half, 360 - half, -90 - half, 90 + half)
            ax.imshow(field.values, origin="upper", extent=extent, **options)
        else:
            levels = {"levels": np.linspace(-1, 1, 41)} if method == "contourf" else {}
            call = getattr(ax, method)
            call(field.longitude, field.latitude, field.values, **levels, **options)
        ax.set_global()
        return sheet.figure

    return draw


SUBJECTS: dict[str, Callable[[xr.DataArray, ccrs.Projection], Figure]] = {
    OURS: draw_ours,
    "pcolormesh": plain("pcolormesh"),
    "contourf": plain("contourf"),
    "imshow": plain("imshow"),
}


def seconds(draw: Callable[[], Figure], repeats: int) -> tuple[float, Figure]:
    """Time from field to PNG, the shortest of some, since other work only ever adds to it.

    A call that takes more than two seconds is not repeated.
    """
    taken: list[float] = []
    while len(taken) < repeats and (not taken or taken[0] < 2):
        start = time.perf_counter()
        figure = draw()
        figure.savefig(io.BytesIO(), format="png")
        taken.append(time.perf_counter() - start)
    return min(taken), figure


def share_right(figure: Figure) -> float:
    """Share of the places on the map whose pixel has the colour of the value there.

    A colour is right within 24 of 255: a pixel's width, and the steps of contourf, are forgiven.
    """
    ax = figure.axes[0]
    for artist in [*ax.collections, *ax.artists]:
        if type(artist).__name__ == "FeatureArtist":
            artist.set_visible(False)  # coasts are not what is tested
    image = image_of(figure)
    places = np.meshgrid(np.arange(1, 360, 3), np.arange(-88, 89, 3))
    longitude, latitude = (part.ravel() for part in places)
    placed = ax.projection.transform_points(ccrs.PlateCarree(), longitude, latitude)[:, :2]
    finite = np.isfinite(placed).all(axis=1)
    pixels = ax.transData.transform(np.where(finite[:, None], placed, 0.0))
    shown = finite.copy()
    for shift in [(x, y) for x in (-3, 3) for y in (-3, 3)]:
        shown &= is_on_map(ax, *ax.transData.inverted().transform(pixels + shift).T)
    column, row = np.floor(pixels[shown]).astype(int).T
    found = image[image.shape[0] - 1 - row, column, :3].astype(int)
    scaled = (errors(longitude, latitude)[shown] + 1) / 2
    wanted = matplotlib.colormaps[STYLE.colormap](scaled, bytes=True)[:, :3].astype(int)
    return float((np.abs(found - wanted).max(axis=1) <= 24).mean())


def measure(spacing: float, repeats: int) -> list[dict[str, object]]:
    rows: list[dict[str, object]] = []
    field = global_field(spacing)
    for name, projection in PROJECTIONS.items():
        case = f"{spacing:g} deg {name}"
        ours = 0.0
        for subject, draw in SUBJECTS.items():
            taken, figure = seconds(partial(draw, field, projection), repeats)
            ours = taken if subject == OURS else ours
            rows.append({"case": case, "subject": subject, "value": round(taken, 3), "unit": "s",
                         "against": OURS, "ratio": round(taken / ours, 2)})  # fmt: skip
            right = share_right(figure)
            rows.append({"case": case, "subject": subject, "value": round(100 * right, 1),
                         "unit": "% right", "against": OURS, "ratio": None})  # fmt: skip
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="1 degree only, within a minute")
    parser.add_argument("--json", type=Path, metavar="FILE")
    options = parser.parse_args()
    warnings.simplefilter("ignore")  # shapely complains about what contourf gives it
    spacings, repeats = ([1.0], 3) if options.quick else ([1.0, 0.25], 5)
    rows = [row for spacing in spacings for row in measure(spacing, repeats)]
    print(f"{'case':24}{'subject':14}{'s a map':>9}{'× ours':>9}{'% right':>9}")
    for taken, right in zip(rows[::2], rows[1::2], strict=True):
        print(f"{taken['case']:24}{taken['subject']:14}{taken['value']:9.2f}{taken['ratio']:9.1f}"
              f"{right['value']:9.1f}")  # fmt: skip
    if options.json:
        options.json.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
