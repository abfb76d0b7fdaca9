"""How long does a map take (CPU), and is it right? Ours beside plain cartopy and earthkit-plots.

Global: a field of lows and highs is drawn to a PNG by `climlstm.plots.plot_field`, with coasts,
colour bar and titles, and by `pcolormesh`, `contourf` and `imshow` on a bare cartopy map of the
same size. Right are those of many places on Earth whose pixel has the colour of the value there.

Regional: an hour of ERA5's 2 m temperature over the British Isles (CLIMLSTM_REAL_DATA; elsewhere
made up), with coasts of 1:50 million, borders, labelled grid lines, colour bar and title, by ours,
cartopy's `contourf` and `pcolormesh`, and earthkit-plots where it is installed. The others, which
would download coasts, find ours. `--pictures FILE` puts the pictures side by side.

    python benchmarks/maps.py [--quick] [--json FILE] [--pictures FILE]
"""

import argparse
import io
import json
import os
import time
import warnings
from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory

import matplotlib
import numpy as np
import xarray as xr
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

from climlstm.plots import plot_field
from climlstm.plots.coastlines import _geometries
from climlstm.plots.output import image_of
from climlstm.plots.overlays import is_on_map
from climlstm.plots.projections import GLOBE, view
from climlstm.plots.sheet import new_sheet
from climlstm.plugins import Style

import cartopy  # isort: skip (after pyproj, which climlstm imports with care)
import cartopy.crs as ccrs  # isort: skip
import shapefile  # isort: skip

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
    """CPU time from field to PNG, the shortest of some, since other work only ever adds to it.

    A call that takes more than two seconds is not repeated.
    """
    taken: list[float] = []
    while len(taken) < repeats and (not taken or taken[0] < 2):
        start = time.process_time()
        figure = draw()
        figure.savefig(io.BytesIO(), format="png")
        taken.append(time.process_time() - start)
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


UK = (-10.0, 2.0, 50.0, 58.0)
INCHES, DOTS = 5.0, 150


def regional_field() -> xr.DataArray:
    """2 m temperature at noon on 13 March 2019, kelvin."""
    path = Path(os.environ.get("CLIMLSTM_REAL_DATA", "."), "era5_t2m_uk_2019_03")
    [*files] = path.glob("*.grib")
    if files and find_spec("cfgrib"):
        options = {"engine": "cfgrib", "backend_kwargs": {"indexpath": ""}}
        return xr.open_dataset(files[0], **options)["t2m"].isel(time=300).load()
    latitude, longitude = np.linspace(58, 50, 33), np.linspace(-10, 2, 49)
    values = 290 + 6 * errors(8 * longitude[None, :], latitude[:, None])
    coordinates = {"latitude": latitude, "longitude": longitude}
    attrs = {"units": "K", "long_name": "2 metre temperature"}
    return xr.DataArray(values, coordinates, ("latitude", "longitude"), name="t2m", attrs=attrs)


def regional_ours(field: xr.DataArray) -> Figure:
    figure = plot_field(field, region=UK, levels=10, gridlines=True, width=INCHES, dpi=DOTS)
    assert isinstance(figure, Figure)
    return figure


def regional_plain(method: str) -> Callable[[xr.DataArray], Figure]:
    """The same by cartopy and matplotlib, as their galleries do it."""

    def draw(field: xr.DataArray) -> Figure:
        figure = Figure(figsize=(INCHES, 0.95 * INCHES), dpi=DOTS)
        ax = figure.add_subplot(projection=ccrs.LambertConformal(-4, 54))
        ax.set_extent(UK, ccrs.PlateCarree())
        options = {"levels": 10} if method == "contourf" else {}
        drawn = getattr(ax, method)(
            field.longitude, field.latitude, field - 273.15, transform=ccrs.PlateCarree(), **options
        )
        ax.coastlines("50m")
        ax.add_feature(cartopy.feature.BORDERS.with_scale("50m"), linewidth=0.5)
        ax.gridlines(draw_labels=["left", "bottom"], linewidth=0.4)
        figure.colorbar(drawn, orientation="horizontal", shrink=0.7, label="2 m temperature (°C)")
        ax.set_title(f"{np.datetime_as_string(field.time.values, 'h')}" if "time" in field.coords
                     else "")  # fmt: skip
        return figure

    return draw


def regional_earthkit(field: xr.DataArray) -> Figure:
    """The same by earthkit-plots, as its guide does it."""
    import earthkit.plots

    chart = earthkit.plots.Map(domain=UK, figsize=(INCHES, 0.95 * INCHES))
    chart.quickplot(field, units="celsius")
    chart.coastlines()
    chart.borders()
    chart.gridlines()
    chart.legend()
    chart.title()
    figure: Figure = chart.figure.fig
    figure.set_dpi(DOTS)
    return figure


REGIONAL: dict[str, Callable[[xr.DataArray], Figure]] = {
    OURS: regional_ours,
    "pcolormesh": regional_plain("pcolormesh"),
    "contourf": regional_plain("contourf"),
    **({"earthkit-plots": regional_earthkit} if find_spec("earthkit") else {}),
}


def lend_coasts(folder: Path) -> None:
    """Our coasts and borders of 1:50 million as shapefiles where cartopy looks for them."""
    names = {"coast": "physical/ne_50m_coastline",
             "borders": "cultural/ne_50m_admin_0_boundary_lines_land"}  # fmt: skip
    for layer, name in names.items():
        path = folder / "shapefiles" / "natural_earth" / name
        path.parent.mkdir(parents=True)
        with shapefile.Writer(str(path), shapeType=shapefile.POLYLINE) as writer:
            writer.field("FEATURECLA", "C")
            for line in _geometries(layer, "50m"):
                writer.line([list(line.coords)])
                writer.record(layer)
    cartopy.config["pre_existing_data_dir"] = str(folder)


def side_by_side(images: list[np.ndarray], path: Path) -> None:
    """Write pictures (Y, X, 4) beside each other as one."""
    height = max(image.shape[0] for image in images)
    padded = [np.pad(i, ((0, height - i.shape[0]), (0, 20), (0, 0)), constant_values=255)
              for i in images]  # fmt: skip
    matplotlib.image.imsave(path, np.concatenate(padded, axis=1))


def measure_regional(repeats: int, pictures: Path | None) -> list[dict[str, object]]:
    """Times of the regional map; the first call of each, which reads the coasts, is not counted."""
    rows: list[dict[str, object]] = []
    field, drawn, ours = regional_field(), [], 0.0
    with TemporaryDirectory() as folder:
        lend_coasts(Path(folder))
        for subject, draw in REGIONAL.items():
            first, _ = seconds(partial(draw, field), 1)
            taken, figure = seconds(partial(draw, field), repeats)
            ours = taken if subject == OURS else ours
            both = ((taken, "s", round(taken / ours, 2)), (first, "s, the first", None))
            rows += [{"case": "regional", "subject": subject, "value": round(value, 3),
                      "unit": unit, "against": OURS, "ratio": ratio}
                     for value, unit, ratio in both]  # fmt: skip
            drawn.append(image_of(figure))
    if pictures:
        side_by_side(drawn, pictures)
    return rows


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


def print_rows(rows: list[dict[str, object]], other: str) -> None:
    """Two rows of a subject on a line: its time, and another number."""
    print(f"{'case':24}{'subject':16}{'s a map':>9}{'× ours':>9}{other:>9}")
    for taken, more in zip(rows[::2], rows[1::2], strict=True):
        print(f"{taken['case']:24}{taken['subject']:16}{taken['value']:9.2f}{taken['ratio']:9.1f}"
              f"{more['value']:9.1f}")  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="1 degree only, within a minute")
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--pictures", type=Path, metavar="FILE", help="PNG of the regional maps")
    options = parser.parse_args()
    warnings.simplefilter("ignore")  # shapely complains about what contourf gives it
    spacings, repeats = ([1.0], 3) if options.quick else ([1.0, 0.25], 5)
    rows = measure_regional(repeats, options.pictures)
    print_rows(rows, "first, s")
    for spacing in spacings:
        found = measure(spacing, repeats)
        print_rows(found, "% right")
        rows += found
    if options.json:
        options.json.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
