"""Storm tracks, ensembles, animations, and coastlines fetched for later."""

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pandas as pd
import pytest
import xarray as xr

pytest.importorskip("cartopy")

import cartopy.crs as ccrs
import matplotlib
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from PIL import Image

from climlstm import plots
from climlstm.errors import DataError
from climlstm.grid import great_circle_km
from climlstm.plots import animation, coastlines, styles, tracks
from climlstm.plots.output import image_of
from tests.pack_natural_earth import pack


def storm_table(longitude, latitude, *, name="a", slp=980.0, init="2020-01-01", member=-1):
    count = len(longitude)
    leads = pd.to_timedelta(6 * np.arange(1, count + 1), unit="h")
    return pd.DataFrame(
        {"track_id": name, "init_time": pd.Timestamp(init), "lead_time": leads,
         "time": pd.Timestamp(init) + leads, "member": member, "lat": latitude, "lon": longitude,
         "slp": slp, "wind": 20.0}
    )  # fmt: skip


def track_lines(figure):
    """The coloured pieces of the tracks, and their intensities."""
    found = [part for part in figure.axes[0].collections if isinstance(part, LineCollection)]
    coloured = next(part for part in found if part.get_array() is not None)
    return coloured.get_segments(), coloured.get_array()


@pytest.mark.parametrize("centre", [0, 180])
def test_a_track_over_the_date_line_is_cut_only_where_the_map_is(centre):
    storm = storm_table([170.0, 176, -178, -172], [40.0, 42, 44, 46])
    figure = plots.plot_tracks(storm, projection=ccrs.PlateCarree(centre), region="global")
    pieces, _ = track_lines(figure)
    assert max(np.abs(np.diff(piece[:, 0])).max() for piece in pieces) < 5
    ends = [(piece[0, 0], piece[-1, 0]) for piece in pieces]
    if centre == 180:
        assert ends[0][0] == pytest.approx(-10)
        assert ends[-1][1] == pytest.approx(8)
        assert len(pieces) == 3
    else:
        assert ends[0][0] == pytest.approx(170)
        assert ends[-1][1] == pytest.approx(-172)


def test_tracks_follow_great_circles_even_over_the_pole():
    storm = storm_table([0.0, 180.0], [80.0, 80.0])
    figure = plots.plot_tracks(storm, projection=ccrs.NorthPolarStereo(), region="arctic")
    pieces, _ = track_lines(figure)
    points = np.concatenate(pieces)
    np.testing.assert_allclose(points[:, 0], 0, atol=1e-3)  # straight on, not around the pole
    back = ccrs.PlateCarree().transform_points(ccrs.NorthPolarStereo(), *points.T)
    length = great_circle_km(back[:-1, 1], back[:-1, 0], back[1:, 1], back[1:, 0]).sum()
    assert length == pytest.approx(float(great_circle_km(80, 0, 80, 180)), rel=1e-3)


def test_tracks_are_coloured_by_the_mean_intensity_of_their_ends():
    storm = storm_table([0.0, 0.5, 1.0], [50.0, 50, 50], slp=[980.0, 970.0, 990.0])
    _, colours = track_lines(plots.plot_tracks(storm, limits=(960, 1000)))
    np.testing.assert_allclose(colours, [975, 980])


def test_only_one_start_and_the_truth_of_its_time_are_drawn():
    first = storm_table([0.0, 5, 10], [50.0, 51, 52])
    later = storm_table([40.0, 45, 50], [50.0, 51, 52], init="2020-01-05")
    truth = storm_table([0.0] * 60, np.linspace(40, 60, 60)).assign(init_time=pd.NaT)
    table = pd.concat([first, later])
    pieces, _ = track_lines(plots.plot_tracks(table, truth=truth, projection="platecarree"))
    assert len(pieces) == 2
    during = tracks._while(truth, first)
    assert during["time"].max() == first["time"].max()
    chosen = plots.plot_tracks(table, init_time="2020-01-05", projection=ccrs.PlateCarree())
    assert track_lines(chosen)[0][0][0, 0] == pytest.approx(40)
    with pytest.raises(DataError, match="start between 2020-01-01"):
        plots.plot_tracks(table, init_time="2021-01-01")


def test_tables_that_are_no_tracks_are_refused():
    storm = storm_table([0.0, 1], [50.0, 51])
    with pytest.raises(DataError, match="missing: lon"):
        plots.plot_tracks(storm.drop(columns="lon"))
    with pytest.raises(DataError, match="missing: depth"):
        plots.plot_tracks(storm, intensity="depth")
    with pytest.raises(DataError, match="no storm was found"):
        plots.plot_tracks(storm[:0])


def test_real_best_tracks_are_drawn(real_data):
    storms = pd.read_csv(real_data / "best_tracks" / "ERA5_1996_UZ.csv", parse_dates=["time"])
    storms["slp"] /= 100
    pieces, strengths = track_lines(plots.plot_tracks(storms, coastlines="none"))
    steps = storms.groupby("track_id").size() - 1
    assert len(pieces) >= steps.sum()  # some are cut at the date line
    assert storms["slp"].min() <= strengths.min() < 960


def ensemble(values, *, units="K", name="t2m"):
    """Members that are constant all over a coarse globe."""
    latitude, longitude = np.arange(80.0, -81, -20), np.arange(0.0, 360, 20)
    members = np.asarray(values, dtype="float32")
    field = members[:, None, None, None, None] * np.ones((1, 1, 1, latitude.size, longitude.size))
    return xr.Dataset(
        {name: (("realization", "init_time", "lead_time", "latitude", "longitude"), field,
                {"units": units})},
        {"realization": np.arange(members.size), "init_time": [np.datetime64("2020-01-01", "ns")],
         "lead_time": [np.timedelta64(24, "h").astype("m8[ns]")],
         "latitude": latitude, "longitude": longitude},
    )  # fmt: skip


def test_spread_is_the_standard_deviation_of_the_members():
    members = [272.0, 274.0, 276.0, 282.0]
    figure = plots.plot_spread(ensemble(members), "t2m")
    drawn = figure.axes[0].images[0].get_array()
    np.testing.assert_allclose(drawn, np.std(members, ddof=1), rtol=1e-6)
    assert figure.axes[1].get_xlabel() == "Spread of 4 members (K)"


@pytest.mark.parametrize(("threshold", "share"), [({"below": 0.0}, 25), ({"above": 2.0}, 50)])
def test_probability_counts_members_in_display_units(threshold, share):
    members = [272.0, 274.0, 276.0, 282.0]
    figure = plots.plot_probability(ensemble(members), "t2m", **threshold)
    np.testing.assert_allclose(figure.axes[0].images[0].get_array(), share)
    with pytest.raises(DataError, match="one threshold"):
        plots.plot_probability(ensemble(members), "t2m")


def test_spaghetti_has_a_strand_for_each_member_and_the_mean():
    forecast = ensemble([270.0, 280, 290])
    tilt = xr.DataArray(forecast.latitude.values, dims="latitude") / 10
    forecast["t2m"] = (forecast["t2m"] - tilt).assign_attrs(units="K")
    truth = forecast["t2m"].isel(realization=0, init_time=0, lead_time=0, drop=True)
    truth = truth.expand_dims(time=[np.datetime64("2020-01-02", "ns")]).to_dataset()
    figure = plots.plot_spaghetti(forecast, "t2m", levels=[4.0, 10.0], truth=truth)
    sets = [part for part in figure.axes[0].collections if hasattr(part, "levels")]
    assert len(sets) == 3 + 1 + 1
    assert all(list(part.levels) == [4.0, 10.0] for part in sets)


def test_stamps_show_every_member_in_the_same_colours():
    figure = plots.plot_stamps(ensemble([270.0, 280, 290]), "t2m", columns=2)
    images = [ax.images[0] for ax in figure.axes if hasattr(ax, "projection") and ax.images]
    means = [float(image.get_array().mean()) for image in images]
    np.testing.assert_allclose(means, np.array([270, 280, 290]) - 273.15, rtol=1e-5)
    assert len({image.get_clim() for image in images}) == 1
    given = Figure()
    maps = given.subplots(1, 3, subplot_kw={"projection": ccrs.PlateCarree()})
    assert plots.plot_stamps(ensemble([270.0, 280, 290]), "t2m", ax=maps) is given
    assert all(ax.images for ax in maps)


def test_a_single_forecast_is_no_ensemble():
    with pytest.raises(DataError, match="plot_forecast"):
        plots.plot_spread(ensemble([280.0]), "t2m")


@pytest.fixture
def warming():
    """A forecast that is warmer by ten degrees a step, all over the globe."""
    leads = (np.arange(1, 5) * np.timedelta64(6, "h")).astype("m8[ns]")
    steps = [
        ensemble([263.15 + 10 * n]).isel(realization=0).assign_coords(lead_time=[lead])
        for n, lead in enumerate(leads)
    ]
    return xr.concat(steps, "lead_time")


def test_an_animation_has_a_frame_for_each_lead_in_its_colours(warming, tmp_path):
    path = plots.animate(warming, "t2m", tmp_path / "out" / "t2m.gif", width=3, coastlines="none")
    shades = styles.look_of(warming["t2m"])
    with Image.open(path) as movie:
        assert movie.n_frames == 4
        middle = (movie.width // 2, movie.height // 2)
        for index in range(4):
            movie.seek(index)
            found = np.array(movie.convert("RGB").getpixel(middle))
            low, high = shades.limits
            share = (10.0 * (index - 1) - low) / (high - low)
            wanted = 255 * np.array(matplotlib.colormaps[shades.colormap](share)[:3])
            assert np.abs(found - wanted).max() < 6
    assert [file.name for file in path.parent.iterdir()] == ["t2m.gif"]


def test_an_animation_that_breaks_off_leaves_nothing(warming, tmp_path, monkeypatch):
    def break_off(frames, path, *rest):
        path.write_bytes(b"GIF89a")
        raise OSError("No space left on device")

    monkeypatch.setattr(animation, "_write_gif", break_off)
    with pytest.raises(DataError, match="No space left"):
        plots.animate(warming, "t2m", tmp_path / "t2m.gif")
    assert not list(tmp_path.iterdir())
    with pytest.raises(DataError, match=r"\.gif or \.mp4"):
        plots.animate(warming, "t2m", tmp_path / "t2m.avi")


def test_mp4_without_ffmpeg_says_what_to_install(warming, tmp_path, monkeypatch):
    monkeypatch.setattr(animation.shutil, "which", lambda name: None)
    monkeypatch.setitem(sys.modules, "imageio_ffmpeg", None)
    with pytest.raises(DataError, match="imageio-ffmpeg"):
        plots.animate(warming, "t2m", tmp_path / "t2m.mp4")
    assert not list(tmp_path.iterdir())


def test_mp4_is_written_where_ffmpeg_is(warming, tmp_path):
    try:
        animation.find_ffmpeg()
    except DataError:
        pytest.skip("ffmpeg is not installed")
    path = plots.animate(warming, "t2m", tmp_path / "t2m.mp4", width=3)
    assert path.read_bytes()[4:8] == b"ftyp"


def test_finer_coasts_are_taken_from_cartopys_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("CARTOPY_DATA_DIR", str(tmp_path))
    assert coastlines.find("coast", "10m") is None, "the 10m coasts are on this machine already"
    file = tmp_path / "shapefiles/natural_earth/physical/ne_10m_coastline.shp"
    file.parent.mkdir(parents=True)
    file.touch()
    assert coastlines.find("coast", "10m") == file
    assert coastlines._resolution("10m", "coast", 20.0) == "10m"
    assert coastlines._resolution("auto", "coast", 20.0) == "50m"
    assert coastlines._resolution("auto", "lakes", 20.0) == "110m"
    assert coastlines._resolution("auto", "coast", 360.0) == "110m"
    assert coastlines.find("coast", "110m").is_file()


def test_coasts_that_are_not_here_are_told_once_with_the_command_that_brings_them(
    tmp_path, monkeypatch, caplog
):
    monkeypatch.setenv("CARTOPY_DATA_DIR", str(tmp_path))
    coastlines._warn_once.cache_clear()
    assert [coastlines._resolution("10m", "coast", 20.0) for _ in range(2)] == ["50m"] * 2
    [record] = caplog.records
    command = record.getMessage().partition(": ")[2].split("come with: ")[-1]
    arguments = [*command.split()[1:], "--dry-run"]
    done = subprocess.run([sys.executable, *arguments], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert all(f"ne_10m_{name}" in done.stdout for _, name in coastlines._LAYERS.values())


def test_the_bundled_coasts_are_what_the_source_packs_to(real_data, tmp_path):
    pack(real_data / "natural_earth_110m", tmp_path / "110m.npz")
    with (
        np.load(tmp_path / "110m.npz") as made,
        np.load(coastlines.find("coast", "110m")) as shipped,
    ):
        assert set(made) == set(shipped)
        for layer in made:
            np.testing.assert_array_equal(made[layer], shipped[layer])


def test_figures_are_drawn_alike_in_threads(warming):
    def draw(lead):
        figure = plots.plot_forecast(warming, "t2m", lead_time=f"{lead}h", width=3)
        return image_of(figure)

    leads = [6, 12, 18, 24] * 2
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(draw, leads))
    for image, lead in zip(together, leads, strict=True):
        np.testing.assert_array_equal(image, draw(lead))


def test_rank_histogram_is_relative_to_equal_ranks():
    leads = [pd.Timedelta(hours=6 * n) for n in range(1, 33)]
    shares = {0: 0.5, 1: 0.25, 2: 0.25}
    ranks = pd.DataFrame(
        [
            {"variable": name, "lead_time": lead, "region": "global", "rank": r, "share": s}
            for name in ("t2m", "z500")
            for lead in leads
            for r, s in shares.items()
        ]
    )
    figure = plots.plot_ranks(ranks)
    assert figure.get_suptitle() == "Rank histogram, 2 members"
    panels = figure.axes
    assert [panel.get_title(loc="left") for panel in panels] == [
        "2 m temperature", "500 hPa geopotential",
    ]  # fmt: skip
    lines = [line for line in panels[0].lines if len(line.get_xdata()) == 3]
    assert [line.get_label() for line in lines] == ["+24 h", "+72 h", "+144 h", "+192 h"]
    np.testing.assert_allclose(lines[0].get_ydata(), [1.5, 0.75, 0.75])
    with pytest.raises(DataError, match="missing: share"):
        plots.plot_ranks(ranks.drop(columns="share"))
