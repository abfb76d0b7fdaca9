"""Words and numbers on maps: what a field is called, and numbers that do not run together."""

import json
from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
import xarray as xr

pytest.importorskip("cartopy")

from climlstm import plots
from climlstm.plots.styles import look_of, look_of_channel, readable_units

LATITUDE, LONGITUDE = np.arange(60.0, 34.9, -1), np.arange(-10.0, 30.1, 1)
SMALL = {"width": 3.2, "coastlines": "none"}


def field(low, high, **attrs):
    """Rises evenly from the north to the south."""
    rows = np.linspace(low, high, LATITUDE.size)[:, None] + 0 * LONGITUDE
    coordinates = {"latitude": LATITUDE, "longitude": LONGITUDE}
    return xr.DataArray(rows, coordinates, ("latitude", "longitude"), name="x", attrs=attrs)


def bar_of(figure):
    figure.draw_without_rendering()
    return figure.axes[-1]


@pytest.mark.parametrize(
    ("low", "span", "levels"),
    [(0, 3e-6, None), (1000, 0.0024, None), (1013.2, 0.03, 10), (-5e-5, 30, None), (0, 4e6, 10)],
)
def test_numbers_of_a_colour_bar_stand_apart_and_are_whole(low, span, levels):
    figure = plots.plot_field(field(low, low + span, units="kg m-2"), levels=levels, **SMALL)
    bar = bar_of(figure)
    boxes = [t.get_window_extent() for t in bar.get_xticklabels() if t.get_text()]
    assert len(boxes) >= 2
    assert all(a.x1 < b.x0 for a, b in pairwise(boxes))
    assert not bar.xaxis.get_offset_text().get_text()


def test_a_factor_stands_with_the_unit():
    bar = bar_of(plots.plot_field(field(0, 2e-5, units="kg m-2 s-1", long_name="Rain"), **SMALL))
    assert bar.get_xlabel() == "Rain (10⁻⁵ kg m⁻² s⁻¹)"
    assert {t.get_text() for t in bar.get_xticklabels()} >= {"0", "1", "2"}


def test_a_long_label_stays_on_the_picture_and_maps_keep_their_size():
    long = field(0, 1, units="W m-2", long_name="surface downwelling longwave flux in clear air")
    figure, short = plots.plot_field(long, **SMALL), plots.plot_field(field(0, 1), **SMALL)
    box = bar_of(figure).xaxis.label.get_window_extent()
    assert "\n" in bar_of(figure).get_xlabel()
    assert box.y0 >= 0
    sizes = [one.axes[0].get_window_extent() for one in (figure, short)]
    assert sizes[0].height == pytest.approx(sizes[1].height, abs=1)


def test_wind_at_100_hpa_is_not_wind_at_100_m():
    at_level = field(-5, 20, units="m s-1").rename("u").assign_coords(level=100)
    assert look_of(at_level).label == "100 hPa eastward wind"
    assert look_of(field(-5, 20, units="m s-1").rename("u100")).label == "100 m eastward wind"


def test_masks_of_wrf_are_kinds_and_its_names_are_read():
    land = field(1, 2, description="LAND MASK (1 FOR LAND, 2 FOR WATER)", units="").round()
    look = look_of(land.rename("XLAND"))
    assert [value for value, _ in look.quantity.categories] == [1, 2]
    assert look.label == "Land mask (1 for land, 2 for water)"
    theta = field(1, 9, description="perturbation potential temperature", units="K")
    assert look_of(theta.rename("T")).label == "Perturbation potential temperature"


def test_units_as_files_spell_them():
    spelt = {"W m{-2}": "W m⁻²", "degrees_Celsius": "°C", "-": "", "m**2 s**-2": "m² s⁻²"}
    assert {units: readable_units(units) for units in spelt} == spelt


def test_maps_say_what_a_forecast_was_allowed_to_know():
    given = {"prescribed_from": json.dumps({"sst": "observed", "ice": "persisted"})}
    start, leads = pd.Timestamp("2000-01-01"), pd.to_timedelta(["6h", "12h"])
    series = xr.concat([field(270, 290, units="K"), field(271, 291, units="K")], "lead_time")
    forecast = series.rename("t2m").to_dataset().expand_dims(init_time=[start])
    forecast = forecast.assign_coords(lead_time=leads).assign_attrs(given)
    said = "from Sat 1 Jan 2000 00 UTC with observed sst"
    one = plots.plot_forecast(forecast, "t2m", lead_time="6h", **SMALL)
    strip = plots.plot_strip(forecast, "t2m", lead_times=["6h", "12h"], coastlines="none")
    by_accessor = forecast.isel(init_time=0, lead_time=0).climlstm.plot_field("t2m", **SMALL)
    assert one.axes[0].get_title("right").endswith(said)
    assert by_accessor.axes[0].get_title("right").endswith(said)
    assert said in [text.get_text() for text in strip.texts]
    explorer = plots.ForecastView(forecast, "t2m", **SMALL)
    explorer.show(start, leads[0])
    assert said in explorer._when.get_text()


def test_differences_of_one_sign_far_from_zero_can_be_told_apart():
    theta = field(20, 22, units="K", long_name="perturbation potential temperature")
    figure = plots.plot_field(theta, **SMALL)
    assert figure.axes[0].images[0].get_clim() == (20, 22)
    spread = plots.plot_field(field(0.5, 3, units="K", long_name="spread"), **SMALL)
    assert spread.axes[0].images[0].get_clim() == (0, 3)


@pytest.mark.parametrize("name", ["u10", "a name that nobody knows"])
def test_a_speed_that_kept_the_name_of_a_component_is_not_called_one(name):
    u = field(-20, 20, units="m s-1", long_name="10 metre U wind component").rename(name)
    speed = np.hypot(u, u.rename("v10")).rename(name).assign_attrs(u.attrs)
    assert look_of(u).label in ("10 m eastward wind", "10 metre U wind component")
    assert look_of(speed).label == f"{look_of(u).label} or speed"
    stored = speed.copy()
    stored.encoding = {"dtype": "float32"}  # a file that holds only westerly winds says so itself
    assert look_of(stored).label == look_of(u).label
    assert look_of_channel("u10", None).label == "10 m eastward wind"  # in tables and curves


def test_the_middle_of_two_colours_is_zero_or_there_are_no_two():
    east = field(2, 18, units="m s-1").rename("u10")
    assert plots.plot_field(east, **SMALL).axes[0].images[0].get_cmap().name == "viridis"
    both = plots.plot_field(east - 6, limits=(-5, 20), **SMALL).axes[0].images[0]
    np.testing.assert_allclose(both.get_cmap()(both.norm(0.0))[:3], (0.97, 0.97, 0.97), atol=0.02)
