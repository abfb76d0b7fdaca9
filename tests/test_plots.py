"""Maps: right at every pixel, whole on disk, and without a network."""

import subprocess
import sys

import numpy as np
import pytest
import xarray as xr

pytest.importorskip("cartopy")

import cartopy.crs as ccrs
import matplotlib

from climlstm import plots
from climlstm.grid import great_circle_km
from climlstm.plots import canvas, coastlines, colours, fields, output, overlays, projections, sheet
from climlstm.plugins import Style
from tests.globes import global_grid

PLAIN = Style(colormap="viridis", limits=(-1, 1))
GREY = np.array(matplotlib.colors.to_rgb(colours.MISSING_COLOUR)) * 255
PLACES = {  # (longitude, latitude, sign): the hard ones
    "date line": (170.0, 40.0, 1),
    "greenwich": (0.2, -38.0, -1),
    "north pole": (60.0, 80.0, 1),
    "south pole": (-120.0, -80.0, -1),
    "europe": (20.0, 52.0, -1),
}
GLOBAL_PROJECTIONS = [
    ccrs.PlateCarree(),
    ccrs.PlateCarree(180),
    ccrs.Robinson(),
    ccrs.Robinson(180),
    ccrs.Mollweide(-70),
    ccrs.Orthographic(170, 50),
    ccrs.Orthographic(0, -90),
    ccrs.NorthPolarStereo(),
    ccrs.SouthPolarStereo(45),
    ccrs.LambertConformal(10, 45),
    ccrs.LambertAzimuthalEqualArea(180, 60),
]


def lobes(longitude, latitude):
    """A hill or a hollow of 1, some 1300 km wide, at each of the places."""
    return sum(
        sign * np.exp(-((great_circle_km(latitude, longitude, lat, lon) / 1300) ** 2))
        for lon, lat, sign in PLACES.values()
    )


def field_on(latitude, longitude, name="anomaly"):
    values = lobes(longitude[None, :], latitude[:, None]).astype("float32")
    return xr.DataArray(
        values, {"latitude": latitude, "longitude": longitude}, ("latitude", "longitude"), name=name
    )


def colours_at(ax, longitude, latitude):
    """RGB of the pixels of a picture at places on Earth, if they are on the map, off its outline.

    Returns the colours (N, 3), the longitude and latitude of the middle of each pixel (N), and
    which of the places these are.
    """
    image = output.image_of(ax.figure)
    longitude, latitude = np.atleast_1d(longitude), np.atleast_1d(latitude)
    points = ax.projection.transform_points(ccrs.PlateCarree(), longitude, latitude)
    finite = np.isfinite(points[:, 0]) & np.isfinite(points[:, 1])
    pixels = ax.transData.transform(np.where(finite[:, None], points[:, :2], 0.0))
    inside = finite & (np.abs(pixels) < 1e5).all(axis=1)
    for shift in [(x, y) for x in (-3, 0, 3) for y in (-3, 0, 3)]:
        inside &= overlays.is_on_map(ax, *ax.transData.inverted().transform(pixels + shift).T)
    middle = np.floor(pixels[inside]) + 0.5
    back = ccrs.PlateCarree().transform_points(
        ax.projection, *ax.transData.inverted().transform(middle).T
    )
    column, row = np.floor(middle).astype(int).T
    return image[image.shape[0] - 1 - row, column, :3].astype(int), back[:, 0], back[:, 1], inside


def expected_colours(values, style=PLAIN):
    low, high = style.limits
    scaled = (np.atleast_1d(values) - low) / (high - low)
    return matplotlib.colormaps[style.colormap](scaled, bytes=True)[..., :3].astype(int)


def everywhere(step=4.0):
    """Places all over the Earth, those at the seam and the poles too."""
    latitude = np.concatenate([np.arange(-88, 90, step), [-89.8, 89.8]])
    longitude = np.concatenate([np.arange(-180, 180, step), [179.99, -179.99, 0.01]])
    meshed = np.meshgrid(longitude, latitude)
    return meshed[0].ravel(), meshed[1].ravel()


GRIDS = {
    "a cube": {},
    "northward from ±180, no row at the poles": {"ascending": True, "west": -180.0, "poles": False},
    "odd number of columns": {"spacing": 180 / 91, "west": 1.0},
}


@pytest.mark.parametrize(
    ("projection", "grid"),
    [(projection, "a cube") for projection in GLOBAL_PROJECTIONS]
    + [(GLOBAL_PROJECTIONS[at], grid) for at in (3, 5, 6, 9) for grid in list(GRIDS)[1:]],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
def test_every_place_has_its_colour(projection, grid):
    field = field_on(*global_grid(**GRIDS[grid]))
    figure = plots.plot_field(
        field, projection=projection, style=PLAIN, coastlines="none", width=5, region="global"
    )
    longitude, latitude = everywhere()
    found, *places, inside = colours_at(figure.axes[0], longitude, latitude)
    difference = np.abs(found - expected_colours(lobes(*places))).max(axis=1)
    assert inside.sum() > 1000
    assert np.quantile(difference, 0.9) <= 9  # half a pixel of slope: the map begins within one
    assert difference.max() <= 25


SEEN = {
    "orthographic": ("europe", "north pole", "greenwich"),
    "north polar": ("europe", "north pole", "date line"),
    "south polar": ("greenwich", "south pole"),
    "lambert": ("europe", "north pole"),
}
"""Regions across the date line and Greenwich, as files write them, southward and northward."""


@pytest.mark.parametrize("shading", ["smooth", "cells"])
@pytest.mark.parametrize(
    "projection",
    ["platecarree", "robinson", "mollweide", "orthographic", *list(SEEN)[1:]],
)
def test_extremes_are_where_they_belong(projection, shading):
    field = field_on(*global_grid())
    figure = plots.plot_field(
        field, projection=projection, style=PLAIN, coastlines="none", shading=shading, width=4
    )
    longitude, latitude, sign = np.array(list(PLACES.values())).T
    found, _, _, inside = colours_at(figure.axes[0], longitude, latitude)
    seen = [place for place, shown in zip(PLACES, inside, strict=True) if shown]
    assert set(seen) == set(SEEN.get(projection, PLACES))
    assert np.abs(found - expected_colours(sign[inside])).max() <= 12


WESTS = [(-200.0, False), (160.0, True), (340.0, False), (-20.0, True)]
"""Regions across the date line and Greenwich, as files write them, southward and northward."""


def regional_field(west, ascending):
    latitude = np.arange(69.5, 30, -1.0)
    return field_on(latitude[::-1] if ascending else latitude, west + 0.5 + np.arange(40.0))


@pytest.mark.parametrize(("west", "ascending"), WESTS)
@pytest.mark.parametrize(
    "projection", ["platecarree", "robinson", "mollweide", "lambert", "orthographic", "north polar"]
)
def test_a_region_is_drawn_where_it_lies(projection, west, ascending):
    figure = plots.plot_field(
        regional_field(west, ascending),
        projection=projection,
        style=PLAIN,
        coastlines="none",
        width=4,
    )
    places = np.meshgrid(west + np.arange(1, 39.5, 1.5), np.arange(31, 69, 1.5))
    found, *pixels, inside = colours_at(figure.axes[0], *(part.ravel() for part in places))
    assert inside.mean() > 0.9
    assert np.abs(found - expected_colours(lobes(*pixels))).max() <= 12


@pytest.mark.parametrize(("west", "ascending"), WESTS)
def test_nothing_is_drawn_outside_a_region(west, ascending):
    figure = plots.plot_field(
        regional_field(west, ascending), projection=ccrs.Robinson(west + 20), region="global",
        style=PLAIN, coastlines="none", width=4,
    )  # fmt: skip
    outside = np.array([west - 3, west + 43, west + 20, west + 20, west + 160])
    colours, _, _, seen = colours_at(figure.axes[0], outside, np.array([50, 50, 27, 73, 50.0]))
    assert seen.all()
    assert np.abs(colours - GREY).max() <= 1


def test_a_cell_is_drawn_as_far_as_its_edges():
    field = field_on(np.array([52.0, 50.0, 48.0]), np.array([8.0, 10.0, 12.0]))
    field[:] = np.array([[-1, 0, 1], [1, -1, 0], [0, 1, -1]])
    figure = plots.plot_field(
        field, projection="platecarree", style=PLAIN, coastlines="none", shading="cells", width=4
    )
    found, *_ = colours_at(
        figure.axes[0],
        np.array([7.1, 8.9, 9.1, 10.9, 11.1]),
        np.array([52.9, 52.9, 51.1, 50.9, 47.2]),
    )
    wanted = expected_colours(np.array([-1.0, -1.0, 0.0, -1.0, -1.0]))
    assert np.abs(found - wanted).max() <= 2


def test_smooth_shading_paints_no_value_that_the_field_does_not_have():
    field = field_on(*global_grid(10.0))
    field[:] = 0.0
    field[9, 18] = 1.0
    ax = plots.plot_field(field, style=PLAIN).axes[0]
    sampled = ax.images[0].get_array()
    assert sampled.min() >= 0.0
    assert 0.95 < sampled.max() <= 1.0


def test_missing_values_are_grey_in_their_own_cells_only():
    field = field_on(*global_grid(5.0))
    field[:] = 0.5
    field.loc[{"latitude": 30.0, "longitude": 100.0}] = np.nan
    figure = plots.plot_field(field, projection="platecarree", style=PLAIN, coastlines="none")
    found, *_ = colours_at(figure.axes[0], np.array([100.0, 104.0]), np.array([30.0, 30.0]))
    assert np.abs(found[0] - GREY).max() <= 1
    assert np.abs(found[1] - expected_colours(0.5)).max() <= 1


@pytest.mark.parametrize("projection", ["robinson", "orthographic", "lambert"])
def test_contours_follow_the_field(projection):
    shown = projections.view(projections.GLOBE, projection=projection)
    ax = sheet.new_sheet(shown).maps[0][0]
    field = fields.as_field(field_on(*global_grid()))
    lines = overlays.draw_contours(ax, field)
    points = np.concatenate([path.vertices for path in lines.get_paths() if len(path.vertices)])
    places = ccrs.PlateCarree().transform_points(ax.projection, points[:, 0], points[:, 1])
    seen = np.isfinite(places[:, 0]) & overlays.is_on_map(ax, points[:, 0], points[:, 1])
    values = lobes(places[seen, 0], places[seen, 1])
    to_level = np.abs(values[:, None] - np.asarray(lines.levels)[None, :]).min(axis=1)
    assert seen.sum() > 200
    assert np.quantile(to_level, 0.99) < 0.02


def test_wind_across_the_pole_blows_straight():
    """A uniform flow over the pole: on a polar map all arrows near it are alike."""
    latitude, longitude = global_grid(2.0, poles=False)
    lam = np.deg2rad(longitude)[None, :] + 0 * latitude[:, None]
    wind = [
        xr.DataArray(10 * part, {"latitude": latitude, "longitude": longitude},
                     ("latitude", "longitude"), name=name, attrs={"units": "m s-1"})
        for name, part in (("u10", np.cos(lam)), ("v10", -np.sin(lam)))
    ]  # fmt: skip
    view = projections.view(projections.GLOBE, projection="north polar", region=(-180, 180, 75, 90))
    ax = sheet.new_sheet(view, width=4).maps[0][0]
    points = canvas.canvas_of(ax, pixels=20)
    u, v = overlays.wind_on(points, *map(fields.as_field, wind), unit="m s-1")
    along_x, along_y = overlays.on_map(ax.projection, points, u, v)
    near = points.latitude > 76
    np.testing.assert_allclose(along_x[near], 10, atol=0.35)
    np.testing.assert_allclose(along_y[near], 0, atol=0.35)


def test_bundled_coasts_do_not_cross_the_map():
    for layer in ("coast", "borders", "lakes"):
        for line in coastlines._geometries(layer, "110m"):
            longitude = np.asarray(line.exterior.coords if layer == "lakes" else line.coords)[:, 0]
            assert np.abs(np.diff(longitude)).max() < 30
    assert len(coastlines._geometries("coast", "110m")) == 134


def test_real_analysis_has_its_low(real_data):
    """The deepest low of 17 August 2022 00 UTC is painted at its place on every projection."""
    path = real_data / "ecmwf_msl_global_2022_08" / "mslp.nc"
    with xr.open_dataset(path, engine="netcdf4") as data:
        field = data["msl"].isel(time=0).load()
    low = field.where(field == field.min(), drop=True)[0, 0]
    style = Style(units="hPa", colormap="viridis", limits=(940, 1050))
    for projection in ("robinson", "mollweide", "south polar", ccrs.Orthographic(0, -90)):
        figure = plots.plot_field(
            field, projection=projection, style=style, coastlines="none", width=6
        )
        found, *_, inside = colours_at(figure.axes[0], low.longitude.values, low.latitude.values)
        wanted = expected_colours(float(low) / 100, style)
        assert inside[0]
        assert np.abs(found - wanted).max() <= 4


def test_without_cartopy_the_extra_is_named():
    code = (
        "import sys; sys.modules['cartopy'] = None\n"
        "from climlstm.errors import MissingExtraError\n"
        "try:\n    import climlstm.plots\n"
        "except MissingExtraError as error:\n    print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "pip install 'climlstm[plot]'" in done.stdout
