"""Maps, panels and curves: right at every pixel, whole on disk, and without a network."""

import socket
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
import xarray as xr

pytest.importorskip("cartopy")

import cartopy.crs as ccrs
import matplotlib
from matplotlib.figure import Figure

from climlstm import plots
from climlstm.errors import DataError
from climlstm.grid import great_circle_km
from climlstm.plots import canvas, coastlines, fields, overlays, projections, sheet, styles
from climlstm.plugins import Style

PLAIN = Style(colormap="viridis", limits=(-1, 1))
GREY = np.array(matplotlib.colors.to_rgb(styles.MISSING_COLOUR)) * 255
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


def global_grid(spacing=2.0, *, poles=True, ascending=False, west=0.0):
    rows = round(180 / spacing)
    latitude = (
        np.linspace(90, -90, rows + 1) if poles else 90 - spacing / 2 - spacing * np.arange(rows)
    )
    longitude = west + spacing * np.arange(round(360 / spacing))
    return (latitude[::-1] if ascending else latitude), longitude


def colours_at(ax, longitude, latitude):
    """RGB of the pixels of a picture at places on Earth, if they are on the map, off its outline.

    Returns the colours (N, 3), the longitude and latitude of the middle of each pixel (N), and
    which of the places these are.
    """
    image = sheet.image_of(ax.figure)
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
"""What the default view of a projection shows; all of the places, if it is not here."""


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


@pytest.mark.parametrize("wind_as", ["quiver", "barbs", "streamlines"])
def test_wind_is_drawn(wind_as, forecast):
    one = forecast.isel(init_time=0, lead_time=0)
    bare = sheet.image_of(plots.plot_field(one["msl"], width=4))
    windy = plots.plot_field(one["msl"], wind=(one["u10"], one["v10"]), wind_as=wind_as, width=4)
    assert (sheet.image_of(windy) != bare).any(axis=-1).mean() > 0.01


@pytest.fixture
def forecast():
    rng = np.random.default_rng(0)
    latitude, longitude = global_grid(15.0, poles=False)
    leads = np.arange(1, 9) * np.timedelta64(6, "h")
    inits = np.array(["2020-01-01", "2020-01-02"], "datetime64[ns]")
    shape = (2, 8, latitude.size, longitude.size)
    units = {"t2m": ("K", 280, 10), "msl": ("Pa", 101000, 800), "z500": ("m2 s-2", 54000, 2000),
             "u10": ("m s-1", 0, 6), "v10": ("m s-1", 0, 6)}  # fmt: skip
    return xr.Dataset(
        {
            name: (
                ("init_time", "lead_time", "latitude", "longitude"),
                (mean + spread * rng.standard_normal(shape)).astype("float32"),
                {"units": unit},
            )
            for name, (unit, mean, spread) in units.items()
        },
        {"init_time": inits, "lead_time": leads.astype("timedelta64[ns]"),
         "latitude": latitude, "longitude": longitude},
    )  # fmt: skip


@pytest.fixture
def truth(forecast):
    times = pd.date_range("2020-01-01", "2020-01-05", freq="6h")
    rng = np.random.default_rng(1)
    empty = forecast.isel(init_time=0, lead_time=0, drop=True)
    return (
        empty.expand_dims(time=times) + rng.standard_normal(len(times))[:, None, None]
    ).assign_coords(time=times)


def test_panels_share_their_colours_and_errors_are_symmetric(forecast, truth):
    truth = truth.map(lambda field: field * 0 + 281.0, keep_attrs=True)
    figure = plots.plot_forecast(forecast, "t2m", truth=truth, lead_time="24h", coastlines="none")
    predicted, analysed, error = (ax.images[0] for ax in figure.axes[:3])
    assert predicted.get_clim() == analysed.get_clim() == (-40, 40)  # degrees Celsius
    low, high = error.get_clim()
    assert low == -high
    assert analysed.get_array().max() == pytest.approx(281.0 - 273.15, abs=1e-4)
    exact = forecast["t2m"].sel(init_time="2020-01-01", lead_time="24h").values - 281.0
    assert float(error.get_array().max()) <= exact.max() + 1e-4  # K apart are °C apart
    assert high == pytest.approx(np.abs(exact).max(), rel=0.5)


def test_titles_name_start_lead_and_valid_time(forecast, truth):
    figure = plots.plot_forecast(
        forecast, "z500", truth=truth, init_time="2020-01-02", lead_time="36h"
    )
    words = " ".join(text.get_text() for text in figure.texts)
    assert "500 hPa geopotential" in words
    assert "+36 h, valid Fri 3 Jan 2020 12 UTC, from Thu 2 Jan 2020 00 UTC" in words


def test_error_note_is_the_area_weighted_rmse(forecast, truth):
    figure = plots.plot_forecast(forecast, "t2m", truth=truth, lead_time="6h")
    error = (
        forecast["t2m"].isel(init_time=0, lead_time=0)
        - truth["t2m"].sel(time="2020-01-01T06")
    ).values.astype("float64")  # fmt: skip
    edges = np.deg2rad(np.arange(90, -91, -15.0))
    weight = -np.diff(np.sin(edges))[:, None] * np.ones((1, error.shape[1]))
    rmse = np.sqrt((weight * error**2).sum() / weight.sum())
    assert figure.axes[2].get_title(loc="right") == f"RMSE {rmse:.3g} °C"


def test_a_strip_has_a_column_for_each_lead(forecast, truth):
    figure = plots.plot_strip(forecast, "msl", lead_times=["6h", "24h", "48h"], truth=truth)
    maps = [ax for ax in figure.axes if hasattr(ax, "projection")]
    assert len(maps) == 9
    assert len({ax.images[0].get_clim() for ax in maps[:6]}) == 1


def test_given_axes_are_used(forecast, truth):
    figure = Figure(figsize=(9, 3))
    maps = [figure.add_subplot(1, 3, i + 1, projection=ccrs.Robinson()) for i in range(3)]
    for ax in maps:
        ax.set_global()
    assert plots.plot_forecast(forecast, "t2m", truth=truth, ax=maps) is figure
    assert all(ax.images for ax in maps)
    single = Figure().add_subplot(projection=ccrs.Mollweide())
    single.set_global()
    assert plots.plot_field(forecast["t2m"][0, 0], ax=single) is single
    with pytest.raises(DataError, match="cartopy axes"):
        plots.plot_field(forecast["t2m"][0, 0], ax=Figure().add_subplot())


def test_a_strip_is_drawn_on_given_maps(forecast, truth):
    figure = Figure(figsize=(6, 6))
    rows = figure.subplots(3, 2, subplot_kw={"projection": ccrs.Robinson()})
    leads = ["6h", "12h"]
    assert plots.plot_strip(forecast, "t2m", lead_times=leads, truth=truth, ax=rows) is figure
    limits = [[ax.images[0].get_clim() for ax in row] for row in rows]
    assert limits[0] == limits[1]
    colours = [row[0].images[0].cmap.name for row in rows]
    assert colours[0] == colours[1] != colours[2] == styles.ERROR_COLORMAP
    assert [ax.get_title(loc="left") for ax in rows[0]] == ["Forecast +6 h", "Forecast +12 h"]
    with pytest.raises(DataError, match="2 maps, but 6 panels"):
        plots.plot_strip(forecast, "t2m", lead_times=leads, truth=truth, ax=rows[:1])


def score_table():
    rows = [
        {"variable": variable, "level": level, "lead_time": pd.Timedelta(hours=6 * step),
         "region": region, "metric": metric, "model": model, "value": value * step,
         "ci_low": value * step * 0.9, "ci_high": value * step * 1.1, "n": 10}
        for variable, level in (("msl", np.nan), ("z", 500))
        for region in ("global", "tropics")
        for metric in ("rmse", "acc")
        for model, value in (("convlstm", 100.0), ("persistence", 200.0), ("perfect model", 50.0))
        for step in (1, 2, 3, 4)
    ]  # fmt: skip
    return pd.DataFrame(rows)


def test_score_curves_show_the_table_in_readable_units():
    figure = plots.plot_scores(score_table())
    pressure, height = figure.axes
    assert pressure.get_title(loc="left") == "Mean sea level pressure"
    assert pressure.get_title(loc="right") == "hPa"
    assert height.get_title(loc="left") == "500 hPa geopotential"
    lines = {line.get_label(): line for line in pressure.get_lines()}
    np.testing.assert_allclose(lines["convlstm"].get_xdata(), [0.25, 0.5, 0.75, 1.0])
    np.testing.assert_allclose(lines["convlstm"].get_ydata(), [1, 2, 3, 4])  # Pa to hPa
    np.testing.assert_allclose(
        {line.get_label(): line for line in height.get_lines()}["persistence"].get_ydata(),
        np.array([200, 400, 600, 800]) / 98.0665,  # m2 s-2 to decametres
    )
    band = pressure.collections[0].get_paths()[0].vertices
    assert band[:, 1].max() == pytest.approx(4.4)


def test_curves_of_any_evaluator_in_the_units_of_its_table():
    leads = pd.to_timedelta([24, 48, None], unit="h")
    table = pd.DataFrame(
        {"variable": "storm_track", "level": pd.array([pd.NA] * 3, "Float64"), "lead_time": leads,
         "region": "global", "metric": "along_track_error", "model": "convlstm",
         "value": [-40.0, 60.0, 3.0], "units": "km"}
    )  # fmt: skip
    figure = plots.plot_scores(table, metric="along_track_error")
    (panel,) = figure.axes
    assert (panel.get_title(loc="left"), panel.get_title(loc="right")) == ("Storm track", "km")
    np.testing.assert_allclose(panel.get_lines()[0].get_ydata(), [-40, 60])
    assert panel.get_ylim()[0] < -40
    with pytest.raises(DataError, match="no curve"):
        plots.plot_scores(table[2:], metric="along_track_error")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"metric": "rmsee"}, "Did you mean 'rmse'"),
        ({"region": "arctic"}, "global, tropics"),
        ({"variables": ["t2m"]}, "msl, z500"),
    ],
)
def test_score_curves_say_what_is_not_there(options, message):
    with pytest.raises(DataError, match=message):
        plots.plot_scores(score_table(), **options)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"variable": "t2mm"}, "Did you mean 't2m'"),
        ({"variable": "t2m", "lead_time": "5d"}, r"\+6 h, \+12 h"),
        ({"variable": "t2m", "lead_time": "soon"}, "expected one such as '24h'"),
        ({"variable": "t2m", "init_time": "2021-01-01"}, "2 initialisations run from 2020-01-01"),
        ({"variable": "t2m", "region": "europa"}, "Did you mean 'europe'"),
        ({"variable": "t2m", "projection": "robinsson"}, "Did you mean 'robinson'"),
        ({"variable": "t2m", "region": (10, 10, 0, 5)}, "is no box"),
    ],
)
def test_errors_say_what_to_do(forecast, arguments, message):
    with pytest.raises(DataError, match=message):
        plots.plot_forecast(forecast, **arguments)


def test_a_field_with_time_says_how_to_select(truth):
    with pytest.raises(DataError, match=r"\.isel\(time=0\)"):
        plots.plot_field(truth["t2m"])


@pytest.mark.parametrize(
    ("longitude", "expected"),
    [
        ([350.0, 355, 0, 5], [350, 355, 360, 365]),
        ([10.0, 5, 0, -5], [-5, 0, 5, 10]),
        (np.linspace(0, 360, 37), np.arange(0, 360, 10)),
    ],
)
def test_longitudes_are_made_to_rise(longitude, expected):
    longitude = np.asarray(longitude)
    field = xr.DataArray(
        np.zeros((3, longitude.size)),
        {"lat": [1.0, 2, 3], "lon": longitude}, ("lat", "lon"), name="x",
    )  # fmt: skip
    ordered = fields.as_field(field)
    np.testing.assert_allclose(ordered.longitude, expected)
    assert list(ordered.latitude.values) == [3, 2, 1]


def test_units_and_names_are_those_people_read(forecast):
    look = styles.look_of(forecast["t2m"])
    assert (look.label, look.units) == ("2 m temperature", "°C")
    by_alias = xr.DataArray(101325.0, name="mslp", attrs={"units": "Pa"})
    assert styles.look_of(by_alias).label_with_units == "Mean sea level pressure (hPa)"
    unknown = xr.DataArray(
        280.0, name="skin", attrs={"units": "K", "long_name": "skin_temperature"}
    )
    assert styles.look_of(unknown).label_with_units == "Skin temperature (°C)"
    selected = xr.DataArray(5e4, {"level": 500}, name="z", attrs={"units": "m**2 s**-2"})
    assert styles.look_of(selected).label_with_units == "500 hPa geopotential (dam)"
    assert styles.readable_units("kg m-2 s-1") == "kg m⁻² s⁻¹"
    bare = styles.look_of(xr.DataArray(1013.0, name="slp"))
    assert bare.label_with_units == "Mean sea level pressure"  # in what, the file does not say
    assert bare.values(xr.DataArray(1013.0)) == 1013.0
    with pytest.raises(DataError, match="Correct its attribute 'units'"):
        styles.look_of(xr.DataArray(1.0, name="t2m", attrs={"units": "m"}))


def test_fields_that_need_few_of_the_usual_colours_get_a_scale_of_their_own():
    def ends(name, units, low, high, style=None):
        field = xr.DataArray([low, high], dims="x", name=name, attrs={"units": units})
        look = styles.look_of(field, style=style)
        norm = look.norm(look.values(field))
        return norm.vmin, norm.vmax

    assert ends("t2m", "K", 240.0, 305.0) == (-40, 40)
    assert ends("t2m", "K", 283.15, 293.15) == (10, 20)
    assert ends("u10", "m s-1", -3.0, 6.0) == (-6, 6)  # white stays where there is no wind
    assert ends("t2m", "degC", 10.0, 20.0, Style(limits=(-5, 35))) == (-5, 35)


def test_drawing_never_touches_the_network(monkeypatch, forecast, tmp_path):
    def refuse(*args, **kwargs):
        raise AssertionError("a picture asked for the network")

    monkeypatch.setattr(socket, "socket", refuse)
    monkeypatch.setattr(coastlines, "_folders", lambda: [tmp_path])
    coastlines._warn_once.cache_clear()
    for resolution in ("auto", "110m", "50m", "10m"):
        figure = plots.plot_field(forecast["t2m"][0, 0], region="europe", coastlines=resolution)
        plots.save(figure, tmp_path / "map.png")


def test_a_picture_is_saved_whole_or_not_at_all(tmp_path, monkeypatch, forecast):
    figure = plots.plot_field(forecast["t2m"][0, 0])
    path = plots.save(figure, tmp_path / "deep" / "map.png")
    before = path.read_bytes()
    assert before.startswith(b"\x89PNG")

    def break_off(self, target, **options):
        with open(target, "wb") as file:
            file.write(b"half")
        raise OSError("No space left on device")

    monkeypatch.setattr(Figure, "savefig", break_off)
    with pytest.raises(DataError, match="No space left"):
        plots.save(figure, path)
    assert path.read_bytes() == before
    assert [file.name for file in path.parent.iterdir()] == ["map.png"]
    with pytest.raises(DataError, match="png"):
        plots.save(figure, tmp_path / "map.bmpp")


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
