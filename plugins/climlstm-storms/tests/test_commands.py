"""The commands `storms track` and `storms verify`, and the tracks they make."""

import json
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from climlstm_storms.commands import app
from climlstm_storms.formats import read_tracks
from climlstm_storms.selection import RECIPES
from climlstm_storms.standard import KNOT
from climlstm_storms.tracker import track
from climlstm_storms.verification import Rules, verify
from climlstm_storms.write import write_tracks
from typer.testing import CliRunner

from benchmarks.lows import Low, moving_lows, true_tracks
from climlstm.errors import CatalogError, ClimLSTMError, DataError

TIMES = np.datetime64("2020-01-01T00", "ns") + np.arange(21) * np.timedelta64(6, "h")
LATITUDE, LONGITUDE = np.arange(90, -91, -3.0), np.arange(0, 360, 3.0)
LOWS = [
    Low(45, -20, 85, 45),
    Low(-40, 160, 95, 40),
    Low(60, 100, 120, 35),
    Low(-50, 300, 80, 40),
    Low(30, 200, 60, 35),
    Low(-65, 20, 100, 30),
]


@pytest.fixture(scope="module")
def truth():
    return moving_lows(LOWS, LATITUDE, LONGITUDE, TIMES)


def run(*arguments):
    return CliRunner().invoke(app, [str(a) for a in arguments], catch_exceptions=False)


def test_commands_track_and_verify(truth, tmp_path):
    truth.chunk(time=4).to_zarr(tmp_path / "fields.zarr", zarr_format=2, consolidated=True)
    result = run("track", tmp_path / "fields.zarr", "--out", tmp_path / "tracks.csv")
    assert result.exit_code == 0, result.output
    assert f"{len(LOWS)} storms" in result.output
    write_tracks(true_tracks(LOWS, TIMES), tmp_path / "true.nc")
    out = tmp_path / "scores.csv"
    result = run("verify", tmp_path / "tracks.csv", "--truth", tmp_path / "true.nc", "--out", out)
    assert result.exit_code == 0, result.output
    table = pd.read_csv(out).set_index("metric")["value"]
    assert table["pod_storms"] == 1
    assert table["position_error"] < 33  # a tenth of the spacing
    for strict in (("--min-hours", 121), ("--contour", 1e5, 5.5)):  # than any low here
        result = run("track", tmp_path / "fields.zarr", "--out", tmp_path / "none.csv", *strict)
        assert result.output.startswith("0 storms"), strict
    with pytest.raises(DataError, match="not below 0"):
        run("track", tmp_path / "fields.zarr", "--out", tmp_path / "x.csv", "--min-hours", -1)
    with pytest.raises(DataError, match="OURS=THEIRS"):
        run("track", tmp_path / "fields.zarr", "--out", tmp_path / "x.csv", "--name", "msl")
    with pytest.raises(CatalogError, match="there is nothing at"):
        run("track", tmp_path / "nothing.nc", "--out", tmp_path / "x.csv")


def test_the_command_line_has_our_commands():
    code = "from climlstm.cli import app; from typer.testing import CliRunner; import json;"
    code += "r = CliRunner().invoke(app, ['storms', '--help']); print(json.dumps(r.output))"
    done = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True, timeout=120
    )
    assert {"track", "verify"} <= set(json.loads(done.stdout).split())


def test_errors_are_ones_the_command_line_knows():
    assert issubclass(DataError, ClimLSTMError)


def test_tracks_are_the_same_from_chunks_in_any_scheduler(truth):
    import dask

    whole = track(truth, RECIPES["any"])
    for scheduler in ("threads", "synchronous"):
        with dask.config.set(scheduler=scheduler):
            assert track(truth.chunk(time=3), RECIPES["any"]).equals(whole)


@pytest.mark.slow
def test_processes_give_the_same(truth):
    import dask

    with dask.config.set(scheduler="processes", num_workers=2):
        assert track(truth.chunk(time=6), RECIPES["any"]).equals(track(truth, RECIPES["any"]))


def verified(tmp_path, *arguments):
    result = run("verify", *arguments, "--out", tmp_path / "scores.csv")
    assert result.exit_code == 0, result.output
    table = pd.read_csv(tmp_path / "scores.csv").set_index(["model", "metric"])
    return table["value"], " ".join(result.output.split())


@pytest.fixture
def best(tmp_path):
    """Best track of a storm: 48 points, six hours apart."""
    times = np.datetime64("2020-01-01", "ns") + np.arange(48) * np.timedelta64(6, "h")
    track = true_tracks([Low(30, 150, 80, 20)], times)
    write_tracks(track, tmp_path / "best.csv")
    return track


def test_an_analysis_that_ends_misses_what_it_covers(best, tmp_path):
    """Eleven of 48 points found are a POD of 1 in their own time, and of 11/48 in all."""
    write_tracks(best[:11], tmp_path / "tracks.csv")
    files = tmp_path / "tracks.csv", "--truth", tmp_path / "best.csv"
    scores, told = verified(tmp_path, *files)
    assert scores["synthetic", "pod"] == 1
    assert "37 of 48 points of true storms are at others and do not count" in told
    scores, told = verified(tmp_path, *files, "--period", "2020-01-01", "2020-01-31")
    assert scores["synthetic", "pod"] == pytest.approx(11 / 48)
    assert scores["synthetic", "misses"] == 37
    assert "do not count" not in told


def test_a_forecast_that_ends_misses_what_it_covers(best, tmp_path):
    init = best["time"][0]
    forecast = best[1:13].assign(init_time=init, lead_time=best["time"] - init)
    write_tracks(forecast, tmp_path / "tracks.csv")
    files = tmp_path / "tracks.csv", "--truth", tmp_path / "best.csv"
    scores, _ = verified(tmp_path, *files)
    assert scores["synthetic", "pod"].eq(1).all()
    scores, _ = verified(tmp_path, *files, "--longest-lead", 120)
    assert len(scores["synthetic", "pod"]) == 20
    assert scores["synthetic", "pod"].sum() == 12
    assert scores["synthetic", "misses"].sum() == 8


def test_no_tracks_miss_all_storms_of_the_period(best, tmp_path):
    write_tracks(best[:0], tmp_path / "none.csv")
    files = tmp_path / "none.csv", "--truth", tmp_path / "best.csv"
    with pytest.raises(DataError, match=r"no tracks.*--period START END"):
        run("verify", *files)
    table, _ = verified(tmp_path, *files, "--period", "2020-01-01", "2020-01-31")
    scores = table.droplevel("model")
    assert (scores["pod"], scores["misses"], scores["pod_storms"]) == (0, 48, 0)


@pytest.mark.parametrize(
    ("change", "options", "reason"),
    [
        (lambda best: best[:4], (), "Of 1 true storms .* none meets min_duration_h=24"),
        (lambda best: best, ("--latitude", "-60", "0"), "none is in the region 'selected'"),
        (lambda best: best, ("--preset", "tropical"), r"none meets .*column='wind'"),
        (
            lambda best: best,
            ("--period", "2021-01-01", "2021-02-01"),
            "live from 2020-01-01 .* the forecast covers NaT",
        ),
    ],
)
def test_an_empty_result_says_why(best, tmp_path, change, options, reason):
    write_tracks(change(best), tmp_path / "truth.csv")
    write_tracks(best[:0], tmp_path / "none.csv")
    if "--period" not in options:
        options = (*options, "--period", "2020-01-01", "2020-02-01")
    with pytest.raises(DataError, match=reason):
        run("verify", tmp_path / "none.csv", "--truth", tmp_path / "truth.csv", *options)


def test_techniques_of_a_deck_are_scored_apart(tmp_path):
    """GOOD is right, POOR two degrees too far north; CARQ has past positions only."""
    best, deck = [], []
    for k, time in enumerate(pd.date_range("2019-09-04", periods=17, freq="6h")):
        place = f"{280 + 4 * k}N, {790 - 5 * k}W,  85,  956, HU"
        best.append(f"AL, 05, {time:%Y%m%d%H},   , BEST,   0, {place}")
        deck.append(f"AL, 05, 2019090400, 03, GOOD, {6 * k:3d}, {place}")
        deck.append(f"AL, 05, 2019090400, 03, POOR, {6 * k:3d}, {300 + 4 * k}N, {place[6:]}")
    deck.append("AL, 05, 2019090400, 01, CARQ, -12, 272N,  800W,  85,  956, HU")
    (tmp_path / "best.dat").write_text("\n".join(best))
    (tmp_path / "deck.dat").write_text("\n".join(deck))
    scores, told = verified(tmp_path, tmp_path / "deck.dat", "--truth", tmp_path / "best.dat")
    assert set(scores.index.get_level_values("model")) == {"GOOD", "POOR"}
    assert scores["GOOD", "position_error"].max() == pytest.approx(0, abs=0.01)
    assert scores["POOR", "position_error"].min() == pytest.approx(222.4, abs=0.1)
    assert "Storm tracks: GOOD" in told
    with pytest.raises(DataError, match=r"several sources: GOOD, POOR.*tracks\['source'\]"):
        verify(read_tracks(tmp_path / "deck.dat"), read_tracks(tmp_path / "best.dat"), Rules())


def test_columns_and_units_can_be_named(best, tmp_path):
    table = best.assign(wind=20.0)
    write_tracks(table, tmp_path / "best.csv")
    foreign = table.drop(columns="wind").assign(gusts=20 / KNOT)
    foreign.to_csv(tmp_path / "theirs.csv", index=False)
    files = tmp_path / "theirs.csv", "--truth", tmp_path / "best.csv"
    scores, _ = verified(tmp_path, *files, "--column", "wind=gusts", "--unit", "wind=kt")
    assert scores["synthetic", "wind_bias"] == pytest.approx(0, abs=1e-9)
