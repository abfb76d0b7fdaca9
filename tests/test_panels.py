"""Panels, strips and curves: shared colours, titles, units, errors that say what to do."""

import socket

import numpy as np
import pandas as pd
import pytest
import xarray as xr

pytest.importorskip("cartopy")

import cartopy.crs as ccrs
from matplotlib.figure import Figure

from climlstm import plots
from climlstm.errors import DataError
from climlstm.plots import coastlines, colours, fields, output, styles
from climlstm.plugins import Style
from tests.globes import global_grid


@pytest.mark.parametrize("wind_as", ["quiver", "barbs", "streamlines"])
def test_wind_is_drawn(wind_as, forecast):
    one = forecast.isel(init_time=0, lead_time=0)
    bare = output.image_of(plots.plot_field(one["msl"], width=4))
    windy = plots.plot_field(one["msl"], wind=(one["u10"], one["v10"]), wind_as=wind_as, width=4)
    assert (output.image_of(windy) != bare).any(axis=-1).mean() > 0.01


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
    assert figure.axes[2].get_title(loc="right") == f"RMSE {rmse:.3g} K"


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
    names = [row[0].images[0].cmap.name for row in rows]
    assert names[0] == names[1] != names[2] == colours.ERROR_COLORMAP
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
        norm = look.colours(look.values(field)).norm
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
