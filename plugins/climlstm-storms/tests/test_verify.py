"""Scores that can be worked out by hand: shifted, late, turned, missed and invented storms."""

import numpy as np
import pandas as pd
import pytest
from climlstm_storms.ensemble import mean_track, strike_probability
from climlstm_storms.matching import follow, match
from climlstm_storms.persistence import persistence_tracks
from climlstm_storms.scores import grid_snap_floor_km, paired_difference, score_table, summarise
from climlstm_storms.selection import Selection
from climlstm_storms.sphere import extrapolate, from_plane, plane, positions, unit_vectors
from climlstm_storms.tracks import track_table
from climlstm_storms.verification import Region, Rules, verify

from benchmarks.lows import Low, true_tracks
from climlstm.errors import DataError
from climlstm.evaluation.bootstrap import GroupBootstrap
from climlstm.grid import EARTH_RADIUS_KM, great_circle_km

TIMES = np.datetime64("2020-01-01T00", "ns") + np.arange(13) * np.timedelta64(6, "h")
LOWS = [
    Low(45, -10, 85, 45),  # over Greenwich
    Low(-35, 175, 95, 40),  # over the date line
    Low(80, 30, 0, 25),  # over the north pole
    Low(15, -50, 280, 20),
]
KM = 180 / np.pi / EARTH_RADIUS_KM


def shifted(truth, *, east_km=0.0, north_km=0.0):
    center = unit_vectors(truth["lat"], truth["lon"])
    n = len(truth)
    moved = from_plane(center, np.full(n, east_km * KM), np.full(n, north_km * KM))
    latitude, longitude = positions(moved)
    return truth.assign(lat=latitude, lon=longitude)


def forecast_of(tracks, init="2020-01-01T00", member=0):
    init = pd.Timestamp(init)
    table = tracks.assign(init_time=init, lead_time=tracks["time"] - init, member=member)
    return track_table(table[table["lead_time"] > pd.Timedelta(0)])


def score(found, metric, lead_h=None):
    table = summarise(found, GroupBootstrap(resamples=200))
    table = table[table["metric"] == metric]
    if lead_h is None:
        return table[table["lead_time"].isna()]["value"].item()
    return table.set_index("lead_time")["value"][pd.Timedelta(hours=lead_h)]


@pytest.fixture(scope="module")
def truth():
    return true_tracks(LOWS, TIMES)


@pytest.mark.parametrize(("east", "north"), [(100, 0), (0, -80), (60, 80)])
def test_a_shifted_forecast_errs_by_the_shift(truth, east, north):
    found = verify(forecast_of(shifted(truth, east_km=east, north_km=north)), truth, Rules())
    assert len(found.pairs) == 4
    np.testing.assert_allclose(found.errors["distance_km"], np.hypot(east, north), rtol=1e-9)
    parts = np.hypot(found.errors["along_km"], found.errors["cross_km"])
    np.testing.assert_allclose(parts, np.hypot(east, north), rtol=1e-3)  # the sphere is not flat
    assert score(found, "position_error", 24) == pytest.approx(np.hypot(east, north))
    assert score(found, "pod", 24) == 1
    assert score(found, "far", 24) == 0


@pytest.mark.parametrize(
    ("bearing", "east", "north", "along", "cross"),
    [
        (90, 100, 0, 100, 0),  # moving east, forecast further east: ahead
        (90, 0, 100, 0, -100),  # … further north: to the left
        (0, 100, 0, 0, 100),  # moving north, forecast to the east: to the right
        (270, 100, 0, -100, 0),  # moving west: behind
        (180, 0, 100, -100, 0),
    ],
)
@pytest.mark.parametrize("latitude", [0.0, -1.0])  # the sense of left and right has no hemisphere
def test_signs_along_and_across(bearing, east, north, along, cross, latitude):
    storm = true_tracks([Low(latitude, 179, bearing, 30)], TIMES[:3])
    found = verify(forecast_of(shifted(storm, east_km=east, north_km=north)), storm, Rules())
    np.testing.assert_allclose(found.errors["along_km"], along, atol=3)
    np.testing.assert_allclose(found.errors["cross_km"], cross, atol=3)


@pytest.mark.parametrize("late_h", [-6, 6])
def test_a_forecast_that_is_too_slow_errs_along_only(truth, late_h):
    """One step late is as far behind as a storm moves in a step, over date line and pole too."""
    late = truth.assign(time=truth["time"] + pd.Timedelta(hours=late_h))
    found = verify(forecast_of(late), truth, Rules())
    speed = found.errors["storm_id"].map({f"low{n}": low.speed_km_h for n, low in enumerate(LOWS)})
    np.testing.assert_allclose(found.errors["along_km"], -late_h * speed, rtol=1e-6)
    np.testing.assert_allclose(found.errors["cross_km"], 0, atol=1e-3)


def test_a_resting_storm_has_no_direction():
    storm = true_tracks([Low(10, 10, 0, 0)], TIMES[:4])
    found = verify(forecast_of(shifted(storm, east_km=50)), storm, Rules())
    assert found.errors["along_km"].isna().all()
    assert found.errors["distance_km"].to_numpy() == pytest.approx(50)


def test_intensity_errors(truth):
    truth = truth.assign(wind=30.0)
    found = verify(forecast_of(truth.assign(slp=truth["slp"] + 5, wind=27.0)), truth, Rules())
    assert score(found, "slp_bias", 12) == pytest.approx(5)
    assert score(found, "slp_abs_error", 12) == pytest.approx(5)
    assert score(found, "wind_bias", 12) == pytest.approx(-3)
    assert score(found, "wind_abs_error", 12) == pytest.approx(3)


def test_matching_is_one_to_one():
    """Two twins near one forecast track: one is a hit, the other a miss, not both hits."""
    twins = true_tracks([Low(40, 0, 90, 30), Low(41.5, 0, 90, 30)], TIMES[:6])
    single = true_tracks([Low(40.4, 0, 90, 30)], TIMES[:6])
    pairs = match(forecast_of(single), twins, max_distance_km=300, min_overlap=2)
    assert pairs["storm_id"].tolist() == ["low0"]
    assert score(verify(forecast_of(single), twins, Rules()), "pod_storms") == 0.5


def test_overlap_goes_before_distance():
    storm = true_tracks([Low(40, 0, 90, 30)], TIMES)
    brief = shifted(storm, east_km=10).iloc[5:8].assign(track_id="brief")
    long = shifted(storm, east_km=200).assign(track_id="long")
    pairs = match(forecast_of(pd.concat([brief, long])), storm, max_distance_km=300, min_overlap=2)
    assert pairs["track_id"].tolist() == ["long"]


def test_a_match_needs_enough_common_points():
    storm = true_tracks([Low(40, 0, 90, 30)], TIMES[:6])
    once = shifted(storm, east_km=10).iloc[3:4]
    assert match(forecast_of(once), storm, max_distance_km=300, min_overlap=2).empty
    far = shifted(storm, north_km=301)
    assert match(forecast_of(far), storm, max_distance_km=300, min_overlap=2).empty


def test_errors_count_at_all_common_times_of_a_match():
    """A track that diverges is not scored better for the points at which it is far off."""
    storm = true_tracks([Low(40, 0, 90, 30)], TIMES[:5])
    diverging = storm.assign(lat=storm["lat"] + np.arange(5) * 1.2)
    found = verify(forecast_of(diverging), storm, Rules())
    assert len(found.errors) == 4
    assert found.errors["distance_km"].max() > 500


def test_detection_counts(truth):
    """One of four storms lost after 36 h, one never found, one invented."""
    forecast = forecast_of(truth)
    lost = (forecast["track_id"] == "low0") & (forecast["lead_time"] > pd.Timedelta(hours=36))
    forecast = forecast[~lost & (forecast["track_id"] != "low1")]
    invented = forecast_of(true_tracks([Low(60, 100, 90, 30)], TIMES).assign(track_id="ghost"))
    found = verify(track_table(pd.concat([forecast, invented])), truth, Rules())
    assert score(found, "pod", 36) == pytest.approx(3 / 4)
    assert score(found, "pod", 42) == pytest.approx(2 / 4)
    assert score(found, "misses", 42) == 2
    assert score(found, "far", 36) == pytest.approx(1 / 4)
    assert score(found, "far", 42) == pytest.approx(1 / 3)
    assert score(found, "pod_storms") == pytest.approx(3 / 4)
    assert score(found, "far_tracks") == pytest.approx(1 / 4)


def test_a_match_with_a_storm_that_is_not_asked_for_is_no_false_alarm(truth):
    selection = Selection(min_duration_h=48)
    weak = truth[(truth["track_id"] != "low3") | (truth["time"] < TIMES[4])]
    found = verify(forecast_of(truth), weak, Rules(selection=selection))
    assert set(found.expected["storm_id"]) == {"low0", "low1", "low2"}
    assert score(found, "far_tracks") == 0
    assert score(found, "pod_storms") == 1


def test_regions_cut_storms_and_alarms(truth):
    south = Region("south", latitude=(-90, 0), longitude=(150, -150))
    found = verify(forecast_of(truth), truth, Rules(region=south))
    assert set(found.errors["storm_id"]) == set(found.alarms["track_id"]) == {"low1"}
    table = summarise(found, GroupBootstrap(), region="south")
    assert set(table["region"]) == {"south"}


def test_genesis_is_compared_where_both_see_it():
    storm = true_tracks([Low(10, 10, 270, 20, hours=(24, 72))], TIMES)
    late = shifted(storm[storm["time"] >= TIMES[6]], east_km=30)
    cases = pd.DataFrame({"time": TIMES[1:], "lead_time": TIMES[1:] - TIMES[0]})
    cases = cases.assign(init_time=TIMES[0], member=0)
    found = verify(forecast_of(late), storm, Rules(), cases=cases)
    assert found.genesis["late_h"].tolist() == [12]
    away = 12 * 20 - 30  # it moved on westward for 12 h, and is 30 km to the east
    assert score(found, "genesis_distance") == pytest.approx(away, rel=1e-3)
    assert score(found, "genesis_time_error") == 12
    present = true_tracks([Low(10, 10, 270, 20)], TIMES)
    assert verify(forecast_of(present), present, Rules(), cases=cases).genesis.empty


def test_no_storms_give_an_empty_summary(truth):
    nothing = truth.iloc[:0]
    found = verify(forecast_of(truth), nothing, Rules())
    assert score(found, "far_tracks") == 1
    table = summarise(verify(nothing, nothing, Rules()), GroupBootstrap())
    assert table["n"].eq(0).all()
    assert list(table) == [
        "variable",
        "lead_time",
        "region",
        "metric",
        "value",
        "ci_low",
        "ci_high",
        "n",
        "units",
    ]
    silent = forecast_of(truth)[["init_time", "member", "lead_time", "time"]].drop_duplicates()
    missed = verify(nothing, truth, Rules(), cases=silent)
    assert score(missed, "pod", 12) == 0


def test_intervals_are_over_storms_not_over_points():
    """Ten storms of fifty equal errors each know no more than ten numbers."""
    generator = np.random.default_rng(0)
    means = generator.normal(100, 30, size=10)
    values, storms = pd.Series(np.repeat(means, 50)), pd.Series(np.repeat(np.arange(10), 50))
    value, low, high = GroupBootstrap(resamples=4000).mean(values, storms)
    assert value == pytest.approx(means.mean())
    expected = 2 * 1.96 * means.std() / np.sqrt(10)
    assert high - low == pytest.approx(expected, rel=0.15)
    median, low, high = GroupBootstrap(resamples=4000).quantile(values, storms, 0.5)
    assert low < median < high
    assert np.isnan(GroupBootstrap().mean(values[:200], storms[:200])[1:]).all()  # four storms


def test_bootstrap_repeats_with_its_seed():
    values, storms = pd.Series(np.arange(30.0)), pd.Series(np.arange(30) % 10)
    assert GroupBootstrap(seed=3).mean(values, storms) == GroupBootstrap(seed=3).mean(
        values, storms
    )
    assert GroupBootstrap(seed=3).mean(values, storms) != GroupBootstrap(seed=4).mean(
        values, storms
    )


def test_paired_differences_are_over_the_same_storms(truth):
    better = verify(forecast_of(shifted(truth, east_km=50)), truth, Rules()).errors
    worse = verify(forecast_of(shifted(truth, east_km=120)), truth, Rules()).errors
    worse = worse[worse["storm_id"] != "low2"]
    rows = score_table(paired_difference(better, worse, GroupBootstrap()), "global")
    np.testing.assert_allclose(rows["value"], -70, rtol=1e-9)
    assert set(rows["n"]) == {3}


def test_storms_that_go_straight_on_are_persistence(truth):
    init = pd.Timestamp("2020-01-01T12")
    leads = pd.to_timedelta([6, 24, 60], unit="h")
    cases = pd.DataFrame({"init_time": init, "lead_time": leads})
    tracks = persistence_tracks(truth, cases)
    both = tracks.merge(truth, on=["track_id", "time"], suffixes=("", "_true"))
    assert len(both) == 12
    np.testing.assert_allclose(
        great_circle_km(both.lat, both.lon, both.lat_true, both.lon_true), 0, atol=1e-3
    )
    newborn = truth[(truth["time"] >= init) | (truth["track_id"] != "low3")]
    resting = persistence_tracks(newborn, cases)
    resting = resting[resting["track_id"] == "low3"]
    start = truth[(truth["time"] == init) & (truth["track_id"] == "low3")]["lat"].item()
    np.testing.assert_allclose(resting["lat"], start)
    assert persistence_tracks(truth[truth["time"] >= init], cases).empty  # no motion is known


def test_guided_tracks_follow_a_known_storm_and_nothing_else(truth):
    """Weak minima all round: the one near the expected position is taken."""
    init = pd.Timestamp("2020-01-01T12")
    storm = truth[truth["track_id"] == "low2"]
    later = storm[storm["time"] > init]
    decoys = pd.concat([shifted(later, east_km=e, north_km=n) for e, n in ((600, 0), (0, 700))])
    nodes = pd.concat([shifted(later, east_km=40), decoys], ignore_index=True)
    nodes = nodes.assign(init_time=init, lead_time=nodes["time"] - init).drop(columns="track_id")
    tracks = follow(nodes, storm)
    assert tracks["track_id"].unique().tolist() == ["low2"]
    assert len(tracks) == len(later)
    found = verify(
        tracks,
        storm,
        Rules(),
        pairs=tracks[["init_time", "member", "track_id"]].drop_duplicates().assign(storm_id="low2"),
    )
    np.testing.assert_allclose(found.errors["distance_km"], 40, rtol=1e-6)
    gone = nodes[nodes["time"] != later["time"].iloc[3]]
    gone = pd.concat([gone, nodes.iloc[3:4].assign(lat=np.nan, lon=np.nan)])
    assert len(follow(gone, storm)) == 3
    assert len(follow(gone, storm, max_gap_h=12)) == len(later) - 1


def test_grid_snap_floor_is_the_mean_distance_to_the_nearest_point():
    generator = np.random.default_rng(1)
    for latitude, row, column in ((0.0, 1.0, 1.0), (60.0, 5.625, 5.625), (40.0, 1.25, 2.5)):
        y = generator.uniform(-row / 2, row / 2, 200_000) * 111.195
        x = (
            generator.uniform(-column / 2, column / 2, 200_000)
            * 111.195
            * np.cos(np.deg2rad(latitude))
        )
        floor = grid_snap_floor_km(pd.Series([latitude]), row, column)
        assert floor[0] == pytest.approx(np.hypot(x, y).mean(), rel=5e-3)


def test_strike_probability_is_the_share_of_members_that_pass():
    init = pd.Timestamp("2020-01-01")
    west_east = true_tracks([Low(0, 170, 90, 100)], TIMES)  # fast: points are 600 km apart
    north = true_tracks([Low(0, 170, 0, 100)], TIMES)
    members = [west_east, west_east, north]
    tracks = pd.concat([forecast_of(t, init, m) for m, t in enumerate(members)])
    latitude, longitude = np.array([0.0, 1.0, 2.0]), np.arange(170, 195, 1.0)
    share = strike_probability(tracks, latitude, longitude, members=4).sel(init_time=init)
    assert share.dims == ("latitude", "longitude")
    assert share.sel(latitude=0, longitude=185).item() == 0.5  # between points, past the date line
    assert share.sel(latitude=1, longitude=185).item() == 0.5  # 111 km off
    assert share.sel(latitude=2, longitude=185).item() == 0
    with pytest.raises(DataError, match="3 members"):
        strike_probability(tracks, latitude, longitude, members=2)


def test_mean_track_and_spread():
    storm = true_tracks([Low(0, 179.5, 90, 30)], TIMES[:3])
    tracks = pd.concat([shifted(storm, north_km=d) for d in (-100, 100)])
    middle = mean_track(tracks)
    np.testing.assert_allclose(middle["lat"], 0, atol=1e-9)
    np.testing.assert_allclose(middle["spread_km"], 100, rtol=1e-6)


def test_the_tangent_plane_keeps_distances_and_comes_back():
    generator = np.random.default_rng(2)
    center = unit_vectors(generator.uniform(-90, 90, 50), generator.uniform(-180, 180, 50))
    center[0], center[1] = unit_vectors(90, 30), unit_vectors(-90, 0)
    x, y = generator.uniform(-8, 8, (2, 50))
    points = from_plane(center, x, y)
    back = plane(center, points[:, None])
    np.testing.assert_allclose(back[0][:, 0], x, atol=1e-9)
    np.testing.assert_allclose(back[1][:, 0], y, atol=1e-9)


def test_extrapolation_goes_round_the_globe():
    start, end = unit_vectors(0, 170), unit_vectors(0, 175)
    assert positions(extrapolate(start, end, 2.0))[1] == pytest.approx(-175)
    over = positions(extrapolate(unit_vectors(80, 0), unit_vectors(88, 0), 1.0))
    assert over[0] == pytest.approx(84)
    assert abs(over[1]) == pytest.approx(180)
    np.testing.assert_array_equal(extrapolate(start, start, 5.0), start)
