"""Maps that go into a paper: levels, units, widths, fonts, coasts, and what the notes say."""

import inspect
import re
import subprocess
import sys

import matplotlib
import numpy as np
import pytest
import xarray as xr

pytest.importorskip("cartopy")

from matplotlib import style
from matplotlib.colors import BoundaryNorm
from PIL import Image

from climlstm import plots
from climlstm.errors import DataError
from climlstm.plots import coastlines, options, output
from tests.test_plots import colours_at

LATITUDE, LONGITUDE = np.arange(60.0, 34.9, -1), np.arange(-10.0, 30.1, 1)


def field(name="t2m", units="K", low=270.0, high=300.0, **attrs):
    """Rises evenly from the north to the south."""
    rows = np.linspace(low, high, LATITUDE.size)[:, None] + 0 * LONGITUDE
    return xr.DataArray(
        rows, {"latitude": LATITUDE, "longitude": LONGITUDE}, ("latitude", "longitude"), name=name,
        attrs={"units": units, **attrs},
    )  # fmt: skip


def image(figure):
    return figure.axes[0].images[0]


def texts(figure):
    found = [t.get_text() for ax in figure.axes for t in ax.texts] + [
        t.get_text() for t in figure.texts
    ]
    for ax in figure.axes:
        found += [ax.get_title(loc) for loc in ("left", "right")] + [
            ax.get_xlabel(),
            ax.get_ylabel(),
        ]
    return found


# What is never wrong.


@pytest.mark.parametrize(
    "make",
    [
        lambda t: t - t.mean("time"),
        lambda t: (t - t.mean("time")).drop_attrs().assign_attrs(units="K"),
        lambda t: t.std("time"),
        lambda t: t.max("time") - t.min("time"),
        lambda t: t.isel(time=1).assign_attrs(cell_methods="time: standard_deviation") * 0 + 2,
        lambda t: (t.isel(time=1) * 0 + 150).assign_attrs(
            units="K", standard_name="air_temperature_anomaly"
        ),
    ],
    ids=["anomaly", "anomaly without names", "spread", "range", "cell methods", "standard name"],
)
def test_differences_of_kelvins_keep_their_zero(make):
    weather = xr.concat([field(), field() + 4, field() + 5], "time")
    one = make(weather)
    one = one.isel(time=0) if "time" in one.dims else one
    figure = plots.plot_field(one.rename("t2m"), coastlines="none", width=3)
    shown = np.asarray(image(figure).get_array())
    np.testing.assert_allclose(np.nanmax(shown), float(one.max()), atol=1e-6)
    assert any("(K)" in text for text in texts(figure))


def test_a_difference_is_said_where_it_cannot_be_told():
    warming = field(low=150, high=160)  # on some planet
    told = plots.plot_field(warming, difference=True, coastlines="none", width=3)
    not_told = plots.plot_field(warming, difference=False, coastlines="none", width=3)
    assert float(image(told).get_array().max()) == pytest.approx(160)
    assert float(image(not_told).get_array().max()) == pytest.approx(160 - 273.15)
    assert any("difference" in text for text in texts(told))


def test_fahrenheit_of_a_difference_has_no_offset_either():
    figure = plots.plot_field(field(low=-5, high=5), units="degF", coastlines="none", width=3)
    assert float(image(figure).get_array().max()) == pytest.approx(9)


def test_kelvins_below_zero_among_temperatures_are_refused_with_ways_out():
    broken = field()
    broken[0, 0] = -999.0
    with pytest.raises(DataError, match="below absolute zero") as refused:
        plots.plot_field(broken)
    assert ".where(field > 0)" in str(refused.value)
    plots.plot_field(broken.where(broken > 0), coastlines="none", width=3)
    plots.plot_field(broken, difference=True, coastlines="none", width=3)


def test_colours_are_those_of_the_region_shown():
    warm_south = plots.plot_field(
        field(low=250, high=300), region=(-10, 30, 35, 40), coastlines="none", width=3
    )
    low, high = image(warm_south).get_clim()
    assert low > 10  # the south begins at 290 K
    assert high < 30


@pytest.mark.parametrize("factor", [1, 24, 8760])
def test_rain_of_an_hour_a_day_and_a_year_is_seen(factor):
    rain = field("tp", "m", 0.0, 1e-3 * factor).where(lambda f: f.latitude < 50, 0.0)
    figure = plots.plot_field(rain, coastlines="none", width=3)
    _, high = image(figure).get_clim()
    assert 0.5 * factor <= high <= 1.6 * factor  # mm
    shown = np.asarray(image(figure).get_array())
    assert set(np.unique(shown[np.isfinite(shown)])) <= set(1000 * np.unique(rain))  # no blobs


def test_masks_and_kinds_are_colours_of_their_own_without_halves():
    for values, ticks in (
        (field() > 285, ["no", "yes"]),
        ((field() > 285).astype("int8").assign_attrs(units="1"), ["0", "1"]),
        (
            (field() > 285)
            .astype("int16")
            .assign_attrs(units="1", flag_values=[0, 1, 2], flag_meanings="sea land sea_ice"),
            ["sea", "land", "sea ice"],
        ),
    ):
        figure = plots.plot_field(values.rename("kind"), coastlines="none", width=4)
        shown = np.asarray(image(figure).get_array(), "float64")
        assert set(np.unique(shown[np.isfinite(shown)])) == {0.0, 1.0}
        bar = figure.axes[1]
        assert [
            t.get_text() for t in bar.get_xticklabels() + bar.get_yticklabels() if t.get_text()
        ] == ticks


def test_nothing_and_one_value_are_said():
    assert "no data" in texts(plots.plot_field(field() * np.nan, coastlines="none", width=3))
    still = plots.plot_field(field(low=280.0, high=280.0), coastlines="none", width=3)
    assert "everywhere 6.85 °C" in texts(still)


def test_the_geopotential_of_the_surface_is_no_height_in_metres():
    surface = field(
        "z", "m**2 s**-2", 0.0, 2e4, long_name="Geopotential", standard_name="geopotential"
    )
    figure = plots.plot_field(surface, coastlines="none", width=3)
    assert "Geopotential (m² s⁻²)" in texts(figure)
    low, high = image(figure).get_clim()
    assert (low, high) == (0, 20000)
    height = plots.plot_field(
        field("geopotential_at_surface", "m2 s-2", 0.0, 2e4, standard_name="geopotential"),
        coastlines="none", width=3,
    )  # fmt: skip
    assert float(image(height).get_array().max()) == pytest.approx(2e4 / 9.80665, rel=1e-3)


def test_directions_go_round():
    figure = plots.plot_field(
        field("wdir", "degrees", 0, 360, long_name="wind direction"), coastlines="none", width=3
    )
    assert image(figure).get_clim() == (0, 360)
    ends = image(figure).cmap([0.0, 1.0])
    assert np.abs(ends[0] - ends[1]).max() < 0.05


# What is asked for.


def test_levels_are_steps_of_colour():
    stepped = plots.plot_field(field(), levels=[-5, 0, 10, 30], coastlines="none", width=3)
    assert isinstance(image(stepped).norm, BoundaryNorm)
    assert list(image(stepped).norm.boundaries) == [-5, 0, 10, 30]
    counted = plots.plot_field(field(), levels=6, limits=(0, 30), coastlines="none", width=3)
    assert list(image(counted).norm.boundaries) == [0, 5, 10, 15, 20, 25, 30]
    with pytest.raises(DataError, match="rising edges"):
        plots.plot_field(field(), levels=[3, 1])
    with pytest.raises(DataError, match="from low to high"):
        plots.plot_field(field(), limits=(3, 1))


def test_units_and_colour_maps_by_name():
    figure = plots.plot_field(field(), units="degF", cmap="magma", coastlines="none", width=3)
    assert "2 m temperature (°F)" in texts(figure)
    assert float(image(figure).get_array().max()) == pytest.approx(80.33, abs=0.01)
    assert image(figure).cmap.name == "magma"
    with pytest.raises(DataError, match="Did you mean 'magma'"):
        plots.plot_field(field(), cmap="magmma")
    with pytest.raises(DataError, match="no option 'colormap'"):
        plots.plot_field(field(), colormap="magma")


def test_every_function_names_its_options():

    drawing = [getattr(plots, name) for name in plots.__all__ if name.startswith("plot_")]
    maps = [each for each in drawing if "**options" in inspect.getsource(each)]
    assert len(maps) >= 8
    for function in (*(each for each in maps if each is not plots.plot_ensemble), plots.animate):
        named = set(inspect.signature(function).parameters)
        assert set(options.MapOptions.__annotations__) <= named


@pytest.mark.parametrize(
    ("width", "inches"), [(4.0, 4.0), ("89 mm", 89 / 25.4), ("18cm", 18 / 2.54)]
)
def test_widths_of_columns_and_pages(width, inches, tmp_path):
    figure = plots.plot_field(field(), width=width, dpi=300, coastlines="none")
    assert figure.get_figwidth() == pytest.approx(inches)
    with Image.open(plots.save(figure, tmp_path / "map.png")) as picture:
        assert picture.width == pytest.approx(300 * inches, abs=1)
    with pytest.raises(DataError, match="no length"):
        plots.plot_field(field(), width="89 parsnips")


def test_a_field_is_read_again_for_finer_pictures():
    """At 600 dpi a step between two cells is sharp, not that of the 60 dpi of the figure."""
    cells = field() * 0 + 280 + 10 * (field().longitude > 10)
    figure = plots.plot_field(cells, projection="platecarree", shading="cells", coastlines="none",
                              width=2, dpi=60)  # fmt: skip
    coarse = image(figure).get_array().shape
    figure.dpi = 600
    output.image_of(figure)
    assert image(figure).get_array().shape[1] > 8 * coarse[1]


def test_style_sheets_are_followed(tmp_path):
    with style.context("dark_background"), matplotlib.rc_context({"savefig.dpi": 200}):
        figure = plots.plot_field(field(), width=3, coastlines="none")
        assert figure.get_facecolor()[:3] == (0, 0, 0)
        with Image.open(plots.save(figure, tmp_path / "dark.png")) as picture:
            assert picture.width == 600
            assert np.asarray(picture.convert("RGB"))[3, 3].max() == 0
    with matplotlib.rc_context({"font.size": 15}):
        large = plots.plot_field(field(), width=6, coastlines="none")
    small = plots.plot_field(field(), width=6, coastlines="none")
    sizes = [f.axes[1].get_xticklabels()[0].get_fontsize() for f in (large, small)]
    assert sizes[0] == pytest.approx(1.5 * sizes[1])


def test_letters_of_svg_and_pdf_can_be_selected(tmp_path):
    figure = plots.plot_field(field(), width=3)
    svg = plots.save(figure, tmp_path / "map.svg").read_text()
    assert re.search(r"<text[^>]*>[^<]*2 m temperature", svg)
    assert b"/FontFile2" in plots.save(figure, tmp_path / "map.pdf").read_bytes()  # TrueType


def test_lines_say_what_they_are_and_the_key_of_arrows_lies_off_them():
    pressure = field("msl", "Pa", 99000.0, 103000.0)
    wind = (field("u10", "m s-1", 2, 12), field("v10", "m s-1", 1, 3))
    figure = plots.plot_field(field(), contours=pressure, wind=wind, contour_interval=5, width=4)
    assert "Lines: mean sea level pressure every 5 hPa" in texts(figure)
    figure.draw_without_rendering()
    ax = figure.axes[0]
    [key] = [artist for artist in ax.artists if type(artist).__name__ == "QuiverKey"]
    assert key.text.get_window_extent().y1 < ax.get_window_extent().y0


def test_long_names_are_wrapped_into_the_width():
    name = "surface net downward shortwave flux assuming clear sky without aerosol at the top"
    long = field("x", "W m-2", 0.1, 1, long_name=name)
    figure = plots.plot_field(long, width=3.5, coastlines="none")
    figure.draw_without_rendering()
    width = figure.bbox.width
    for text in (figure.axes[0]._left_title, figure.axes[1].xaxis.label):
        box = text.get_window_extent()
        assert box.x0 >= 0
        assert box.x1 <= width


def test_points_letters_and_grid_lines():
    cities = {"Bern": (7.45, 46.95), "Nowhere": (100.0, 10.0)}
    figure = plots.plot_field(field(), points=cities, letters=True, gridlines=True, width=4)
    figure.draw_without_rendering()
    assert "Bern" in texts(figure)
    assert "a" in texts(figure)
    assert "Nowhere" not in texts(figure)
    found, *_ = colours_at(figure.axes[0], np.array([7.45]), np.array([46.95]))
    assert found.min() > 240  # the white of the mark
    labels = {text.get_text() for text in figure.axes[0].texts if text.get_gid() == "degrees"}
    assert labels == {"60°N", "50°N", "40°N", "0°", "15°E", "30°E"}  # 60°N at a slanting edge
    with pytest.raises(DataError, match="longitude, latitude"):
        plots.plot_field(field(), points={"Bern": (46.95, 107.45)})


def test_letters_that_a_font_lacks_come_from_another(recwarn):
    with matplotlib.rc_context({"font.family": "STIXSizeOneSym"}):  # has hardly any
        plots.plot_field(field(), width=3).draw_without_rendering()
    assert not [w for w in recwarn if "missing from" in str(w.message)]


def test_small_regions_have_coasts_of_1_to_50_million():
    """The island of Gotland is a few points at 1:110 million, or none."""
    lines = {
        r: [s for s in coastlines._geometries("coast", r) if _inside(s, (18, 19.6, 56.8, 58.1))]
        for r in ("110m", "50m")
    }
    points = {r: sum(len(line.coords) for line in found) for r, found in lines.items()}
    assert points["50m"] > 3 * points["110m"]
    for layer in ("coast", "borders"):
        for line in coastlines._geometries(layer, "50m"):
            assert np.abs(np.diff(np.asarray(line.coords)[:, 0])).max() < 8
    assert coastlines._resolution("auto", "coast", 15.0) == "50m"
    assert coastlines._resolution("auto", "coast", 200.0) == "110m"


def _inside(line, box):
    west, south, east, north = line.bounds
    return box[0] < west and east < box[1] and box[2] < south and north < box[3]


def test_plt_show_shows_the_figure_in_a_window():
    """With a backend that has windows, pyplot knows the figure; in scripts without, nobody does."""
    code = (
        "import matplotlib, sys; matplotlib.use('webagg' if sys.argv[1] == 'window' else 'agg')\n"
        "import matplotlib.pyplot as plt\n"
        "from tests.test_maps_for_print import field\n"
        "from climlstm import plots\n"
        "figure = plots.plot_field(field(), width=2, coastlines='none')\n"
        "print(plt.get_fignums(), figure.number if plt.get_fignums() else '')\n"
    )
    for kind, expected in (("window", "[1] 1"), ("file", "[]")):
        done = subprocess.run(
            [sys.executable, "-c", code, kind], capture_output=True, text=True, check=False
        )
        if "tornado" in done.stderr.lower():
            pytest.skip("the only backend with windows that needs no display is not installed")
        assert done.stdout.strip() == expected, done.stderr
