"""The accessor and the widgets: a slider changes the picture, and nothing is drawn twice."""

import io
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
import xarray as xr

pytest.importorskip("cartopy")
pytest.importorskip("ipywidgets")

from IPython.core.formatters import DisplayFormatter
from matplotlib.figure import Figure
from PIL import Image

from climlstm import plots
from climlstm.errors import DataError, PluginError
from climlstm.grid import great_circle_km
from climlstm.notebook import views

LATITUDE, LONGITUDE = np.arange(80.0, -81, -10), np.arange(0.0, 360, 10)


def weather(times):
    """A warm and a cold sector that go once round the Earth in ten days; pressure without lows."""
    days = (np.asarray(times, "M8[ns]") - np.datetime64("2020-01-01")) / np.timedelta64(1, "D")
    phase = np.deg2rad(LONGITUDE)[None, None, :] - 2 * np.pi * days[..., None, None] / 10
    wave = np.cos(phase) * np.cos(np.deg2rad(LATITUDE))[None, :, None]
    return {"t2m": (280 + 15 * wave, "K"), "msl": (101300 + 900 * wave, "Pa")}


@pytest.fixture
def truth():
    times = pd.date_range("2020-01-01", "2020-01-04", freq="6h", unit="ns")
    fields = {
        name: (("time", "latitude", "longitude"), values.astype("float32"), {"units": units})
        for name, (values, units) in weather(times).items()
    }
    return xr.Dataset(fields, {"time": times, "latitude": LATITUDE, "longitude": LONGITUDE})


@pytest.fixture
def forecast(truth):
    """Two days from two starts: the truth, too warm by a degree for every six hours."""
    inits = truth.time.values[[0, 4]]
    leads = (np.arange(1, 9) * np.timedelta64(6, "h")).astype("m8[ns]")
    right = truth.sel(time=xr.DataArray(inits[:, None] + leads, dims=("init_time", "lead_time")))
    right = right.drop_vars("time").assign_coords(init_time=inits, lead_time=leads)
    warmer = xr.DataArray(np.arange(1, 9, dtype="float32"), dims="lead_time")
    return right.assign(t2m=(right.t2m + warmer).assign_attrs(units="K"))


def pixels(png):
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGB")).astype(int)


def controls(box):
    row, message, picture = box.children
    return (*row.children, message, picture)


def test_moving_the_sliders_changes_the_picture_to_the_right_one(forecast, truth):
    box = forecast.climlstm.explore("t2m", truth=truth, coastlines="none")
    variable, start, lead, _, message, picture = controls(box)
    first = picture.value
    lead.value = forecast.lead_time.values[7]
    later = picture.value
    start.value = forecast.init_time.values[1]
    assert not np.array_equal(pixels(first), pixels(later))
    assert not np.array_equal(pixels(later), pixels(picture.value))
    fresh = plots.ForecastView(forecast, "t2m", truth=truth, coastlines="none")
    wanted = fresh.show(forecast.init_time.values[1], "48h")
    assert np.array_equal(pixels(picture.value), pixels(wanted))  # nothing of the old one is left
    variable.value = "msl"
    assert not np.array_equal(pixels(wanted), pixels(picture.value))
    assert message.value == ""


def test_the_view_reuses_its_artists_and_shows_the_error(forecast, truth):
    view = plots.ForecastView(forecast, "t2m", truth=truth, coastlines="none")
    artists = list(view.images)
    for steps in (1, 8):
        view.show(forecast.init_time.values[0], pd.Timedelta(hours=6 * steps))
        np.testing.assert_allclose(view.images[2].get_array(), steps, atol=1e-3)
    assert view.images == artists
    assert [len(ax.images) for ax in view.maps] == [1, 1, 1]


def test_a_lead_beyond_the_truth_is_shown_without_error(forecast, truth):
    view = plots.ForecastView(forecast, "t2m", truth=truth.isel(time=slice(0, 4)))
    view.show(forecast.init_time.values[0], "48h")
    assert view.maps[1].get_title(loc="right") == "none at this time"
    assert np.isnan(np.ma.filled(view.images[2].get_array(), np.nan)).all()


def test_without_widgets_there_is_a_strip(forecast, monkeypatch, caplog):
    monkeypatch.setitem(sys.modules, "ipywidgets", None)
    figure = forecast.climlstm.explore("t2m")
    assert isinstance(figure, Figure)
    assert len([ax for ax in figure.axes if hasattr(ax, "projection")]) == views.STRIP_LEADS
    assert "pip install 'climlstm[notebook]'" in caplog.text


def test_a_figure_shows_itself_once(forecast):
    figure = forecast.climlstm.plot_forecast("t2m")
    shown, _ = DisplayFormatter().format(figure)
    assert shown["image/png"][:4] == b"\x89PNG"
    import matplotlib._pylab_helpers as pyplots

    assert not pyplots.Gcf.figs  # unknown to pyplot, so it is not shown again after the cell


def test_the_accessor_draws_what_the_functions_draw(forecast, truth, tmp_path):
    drawn = forecast.climlstm.plot_forecast("t2m", truth=truth, lead_time="12h")
    assert drawn.axes[2].get_title(loc="right") == "RMSE 2 K"
    field = truth.climlstm.plot_field("msl", time="2020-01-02", projection="mollweide")
    assert field.axes[0].get_title(loc="right") == "Thu 2 Jan 2020 00 UTC"
    with pytest.raises(DataError, match="2020-01-01 00:00 to 2020-01-04"):
        truth.climlstm.plot_field("msl", time="2020-02-01")
    path = forecast.climlstm.animate("t2m", tmp_path / "t2m.gif", width=3)
    assert path.exists()


def test_what_is_no_forecast_says_so(truth):
    with pytest.raises(DataError, match="no forecast"):
        truth.climlstm.explore()
    with pytest.raises(DataError, match="climlstm_provenance"):
        truth.climlstm.verify()
    with pytest.raises(DataError, match="climlstm_provenance"):
        truth.climlstm.truth()


def test_an_evaluator_that_tracks_nothing_is_refused(forecast, truth):
    with pytest.raises(PluginError, match="finds no tracks"):
        forecast.climlstm.tracks(truth, evaluator="rmse")


def test_tracks_of_forecasts_and_truth(forecast, truth):
    """One low that goes east at 50° N, in the truth and alike in the forecast."""
    pytest.importorskip("climlstm_storms")
    centres = 100 + 5.0 * np.arange(truth.sizes["time"])
    away = great_circle_km(LATITUDE[None, :, None], LONGITUDE, 50.0, centres[:, None, None])
    pressure = (101300 - 4000 * np.exp(-((away / 1500) ** 2))).astype("float32")
    true = truth.assign(msl=truth["msl"].copy(data=pressure))
    predicted = forecast.isel(init_time=[0])
    predicted = predicted.assign(msl=predicted["msl"].copy(data=pressure[None, 1:9]))
    table = predicted.climlstm.tracks(true)
    assert set(table["source"]) == {"forecast", "truth"}
    assert table.groupby("source")["track_id"].nunique().eq(1).all()
    figure = predicted.climlstm.plot_tracks(true, field="t2m")
    assert figure.axes[0].get_title(loc="left") == "Storm tracks"


@pytest.mark.parametrize(
    "order",
    [
        "import climlstm, xarray",
        "import xarray, climlstm",
        "import climlstm.notebook, xarray",
    ],
)
def test_the_accessor_is_there_whichever_package_comes_first(order):
    """In a process of its own; and neither order loads torch, cartopy or widgets."""
    code = (
        f"{order}\nimport sys\n"
        "assert 'explore' in repr(xarray.Dataset().climlstm)\n"
        "assert not {'torch', 'cartopy', 'matplotlib', 'ipywidgets'} & set(sys.modules)\n"
        "home = 'climlstm.notebook.accessor'\n"
        "assert not [f for f in sys.meta_path if type(f).__module__ == home]"
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr


def test_without_a_name_the_first_variable_is_drawn(forecast):
    assert "2 m temperature" in forecast.climlstm.plot_forecast().axes[0].get_title(loc="left")


def test_forecasts_of_climlstm_are_scored_and_reported_at_a_word(trained, tmp_path):
    from climlstm import runs
    from climlstm.forecasting import open_forecasts

    inits = pd.date_range("2001-03-12", periods=2, freq="2D").to_numpy()
    runs.forecast(trained, tmp_path / "f.zarr", init_times=inits, steps=2)
    forecasts = open_forecasts(tmp_path / "f.zarr")[["msl"]]
    found = forecasts.climlstm.verify()
    assert set(found.scores["model"]) == {"convlstm", "persistence", "climatology"}
    page = forecasts.climlstm.report(tmp_path / "out.html", evaluators=["rmse"], model="mine")
    assert "<h1>small</h1>" in page.read_text(encoding="utf-8")
    assert "Power spectrum of Mean sea level pressure" in page.read_text(encoding="utf-8")


def test_training_shows_its_progress_in_a_notebook(monkeypatch):
    """A bar in a widget of the cell's output."""
    from rich.console import Console

    from climlstm.training.progress import Display

    console = Console(force_jupyter=True, file=io.StringIO())
    shown = []
    monkeypatch.setattr("rich.jupyter.display", lambda segments, text: shown.append(text))
    with Display(console) as display:
        assert display._bar.live.is_started
        for step in range(1, 4):
            display(
                {"event": "train", "time": float(step), "step": step, "steps": 3, "loss": 0.5,
                 "epoch": 0, "epochs": 1, "horizon": 1, "samples_per_s": 9.0, "data_wait": 0.0}
            )  # fmt: skip
        assert display._bar.tasks[0].completed == 3
    assert shown[0].strip() == "Output()"  # one widget, in which the bar moves


def test_the_picture_follows_the_mouse_and_a_play_button_moves_it(forecast, truth):
    _, start, lead, play, *_ = controls(forecast.climlstm.explore("t2m", coastlines="none"))
    assert start.continuous_update
    assert lead.continuous_update
    assert type(play).__name__ == "Play"
    assert play.max == forecast.sizes["lead_time"] - 1


def test_members_and_their_mean_are_chosen(forecast):
    members = xr.concat([forecast, forecast + 8], pd.Index([0, 1], name="realization"))
    members["t2m"].attrs["units"] = "K"
    *_, member, _, picture = controls(members.climlstm.explore("t2m", coastlines="none"))
    assert member.options == ("mean", "member 0", "member 1")
    seen = [pixels(picture.value)]
    for name in member.options[1:]:
        member.value = name
        seen.append(pixels(picture.value))
    assert not np.array_equal(seen[0], seen[1])
    assert not np.array_equal(seen[1], seen[2])


def test_times_are_the_nearest_ones_with_a_note_or_counted(truth, caplog):
    def drawn(time):
        figure = truth.climlstm.plot_field("t2m", time=time, coastlines="none", width=2)
        return figure.axes[0].get_title(loc="right")

    assert drawn(-1) == drawn(None) == "Sat 4 Jan 2020 00 UTC"
    assert drawn(0) == "Wed 1 Jan 2020 00 UTC"
    assert not caplog.records
    assert drawn("2020-01-02T05") == "Thu 2 Jan 2020 06 UTC"
    assert "this is the nearest, 2020-01-02 06:00" in caplog.text
    with pytest.raises(DataError, match="it runs from"):
        drawn("2030-01-01")
    noleap = truth.convert_calendar("noleap", use_cftime=True)
    figure = noleap.climlstm.plot_field("t2m", time="2020-01-03", coastlines="none", width=2)
    assert "3 Jan 2020" in figure.axes[0].get_title(loc="right")


def test_one_variable_has_the_accessor_too(truth):
    figure = truth["t2m"].climlstm.plot_field(time=0, coastlines="none", width=2)
    assert figure.axes[0].get_title(loc="left") == "2 m temperature"


def test_pictures_in_notebooks_are_small_and_have_letters_that_can_be_read(forecast, truth):
    figure = plots.plot_forecast(forecast, "t2m", truth=truth)
    png = figure._repr_png_()
    assert len(png) < 150_000
    with Image.open(io.BytesIO(png)) as picture:
        assert 900 <= picture.width <= 1100
    ticks = figure.axes[3].get_xticklabels()
    assert min(tick.get_fontsize() for tick in ticks) >= 6.5
