"""Linking: identity through crossings and gaps; StitchNodes' own rules where they are asked for."""

import numpy as np
import pandas as pd
import pytest
from climlstm_storms.centres import Detector
from climlstm_storms.linking import Linker, link
from climlstm_storms.search import detect
from climlstm_storms.selection import RECIPES, Selection, Threshold, wind_factor

from benchmarks.lows import Low, moving_lows, true_tracks
from climlstm.errors import DataError
from climlstm.grid import great_circle_km

START = np.datetime64("2020-01-01T00", "ns")


def hours(*values):
    return START + np.array(values) * np.timedelta64(1, "h")


def nodes(*rows, step_h=6.0):
    """Centres from rows (step, lat, lon); NaN latitudes mark steps without any."""
    table = pd.DataFrame(rows, columns=["step", "lat", "lon"])
    times = START + (table.pop("step") * step_h * 3600).to_numpy("m8[s]")
    return table.assign(
        time=times,
        init_time=np.datetime64("NaT", "ns"),
        lead_time=np.timedelta64("NaT", "ns"),
        member=0,
        spacing_deg=0.25,
    )


def paths(tracks):
    return sorted(
        [tuple(point) for point in track[["lat", "lon"]].to_numpy()]
        for _, track in tracks.groupby("track_id")
    )


def tempest(*rows, range_deg=8.0, max_gap_h=24.0, step_h=6.0):
    linker = Linker(method="tempest", range_deg=range_deg, max_gap_h=max_gap_h)
    return paths(link(nodes(*rows, step_h=step_h), linker, source="x"))


def assign(*rows, range_deg=8.0, max_gap_h=24.0, step_h=6.0):
    linker = Linker(range_deg=range_deg, max_gap_h=max_gap_h)
    return paths(link(nodes(*rows, step_h=step_h), linker, source="x"))


def test_stitch_links_the_nearest_and_shares_a_node():
    rows = [(0, 0, 0), (0, 0, 6), (1, 0, 2), (2, 0, 3)]
    assert tempest(*rows) == [[(0, 0), (0, 2), (0, 3)], [(0, 6), (0, 2)]]


def test_stitch_does_not_scale_its_range_with_the_gap():
    gap = [(0, 0, 0), (1, np.nan, np.nan), (2, 0, 9)]
    assert tempest(*gap) == []
    assert tempest(*gap, range_deg=9.1) == [[(0, 0), (0, 9)]]
    assert assign(*gap) == [[(0, 0), (0, 9)]]


def test_stitch_looks_further_only_where_the_nearest_is_out_of_range():
    assert tempest((0, 0, 0), (1, 0, 20), (2, 0, 3)) == [[(0, 0), (0, 3)]]
    assert tempest((0, 0, 0), (1, 0, 5), (1, 0, 7), (2, 0, 0)) == [
        [(0, 0), (0, 5), (0, 0)],
        [(0, 7), (0, 0)],
    ]


def test_stitch_continues_the_first_in_order_of_the_grid():
    """Of two centres that share a successor, whichever is the deeper; the other ends there."""
    north, south = (0, 12.0, 0.0), (0, 8.0, 0.0)
    shared = [(1, 10.0, 0.0), (2, 10.0, 1.0)]
    for first, second in ((north, south), (south, north)):  # in order of depth
        table = nodes(first, second, *shared)
        table = table.assign(j=(90 - table["lat"]).astype(int), i=0)  # rows from north to south
        tracks = link(table, Linker(method="tempest"), source="x")
        assert paths(tracks) == [
            [(8.0, 0.0), (10.0, 0.0)],
            [(12.0, 0.0), (10.0, 0.0), (10.0, 1.0)],
        ]
        ascending = table.assign(j=(90 + table["lat"]).astype(int))  # rows from south to north
        tracks = link(ascending, Linker(method="tempest"), source="x")
        assert paths(tracks) == [
            [(8.0, 0.0), (10.0, 0.0), (10.0, 1.0)],
            [(12.0, 0.0), (10.0, 0.0)],
        ]


@pytest.mark.parametrize("degrees", np.arange(2, 40, 3) * 0.25)
@pytest.mark.parametrize("longitude", [0.0, 33.25, 179.5])
def test_a_limit_is_within(degrees, longitude):
    """A move of exactly the range is linked, however it rounds; one of a thousandth more is not."""
    rows = [(0, 0, longitude), (1, 0, longitude + degrees)]
    for linked in (tempest, assign):
        assert [len(path) for path in linked(*rows, range_deg=degrees)] == [2]
        apart = linked(*rows, range_deg=degrees - 1e-3)
        assert [len(path) for path in apart] == ([] if linked is tempest else [1, 1])
    tracks = link(nodes(*rows), Linker(range_deg=degrees), source="x")
    for limit in ({"min_path_deg": degrees}, {"min_endpoint_deg": degrees}, {"min_duration_h": 6}):
        assert len(Selection(**limit).choose(tracks)) == 2


@pytest.mark.parametrize("linked", [tempest, assign])
def test_daily_lows_are_linked_though_gaps_are_shorter(linked):
    rows = [(0, 0, 0), (1, 0, 5), (2, 0, 10), (12, 0, 11)]
    tracks = [track for track in linked(*rows, step_h=24, max_gap_h=12) if len(track) > 1]
    assert tracks == [[(0, 0), (0, 5), (0, 10)]]


@pytest.mark.parametrize("max_gap_h", [12, 18, 24])
def test_a_gap_is_the_time_between_linked_nodes(max_gap_h):
    rows = [(0, 10, 0), (1, np.nan, np.nan), (2, np.nan, np.nan), (3, 10, 1)]
    linked = max_gap_h >= 18  # two missing six-hour steps
    whole = [[(10, 0), (10, 1)]]
    assert tempest(*rows, max_gap_h=max_gap_h) == (whole if linked else [])
    assert assign(*rows, max_gap_h=max_gap_h) == (whole if linked else [[(10, 0)], [(10, 1)]])


def test_crossing_storms_keep_their_identity():
    a = [(t, 40 + t, -12 + 4 * t) for t in range(7)]
    b = [(t, 46 - t, -12 + 4 * t) for t in range(7)]
    merged = [*a[:3], *b[:3], a[3], *a[4:], *b[4:]]  # they meet, and are one centre for a step
    found = assign(*merged)
    north_first = next(path for path in found if path[0] == (46, -12))
    south_first = next(path for path in found if path[0] == (40, -12))
    assert south_first[-1] == (46, 12)
    assert north_first[-1] == (40, 12)
    assert len(found) == 2
    whole = assign(*[(t, lat + 0.3, lon) for t, lat, lon in a], *b)
    assert [len(path) for path in whole] == [7, 7]
    assert tempest(*merged) != found  # the nearest centre is the other storm's


def test_a_fresh_storm_is_not_robbed_by_a_missing_one():
    fresh = [(t, 30, 3 * t) for t in range(5)]
    missing = [(0, 33, 0), (1, 33, 3)]
    found = assign(*fresh, *missing)
    assert [(30, 0), (30, 3), (30, 6), (30, 9), (30, 12)] in found
    assert [(33, 0), (33, 3)] in found


@pytest.mark.parametrize("step_h", [1, 3, 6, 12])
def test_the_range_goes_with_the_time_step(step_h):
    degrees = 1.3 * step_h  # 40 m/s
    whole = assign(*[(t, 0, degrees * t) for t in range(6)], step_h=step_h)
    assert [len(path) for path in whole] == [6]
    twice = assign((0, 0, 0), (1, 0, 2.1 * degrees), step_h=step_h)
    assert [len(path) for path in twice] == [1, 1]


def test_no_step_is_too_short_for_the_grid():
    coarse = nodes((0, 0, 0), (1, 0, 5.6), (2, 0, 5.6), step_h=1).assign(spacing_deg=5.6)
    assert paths(link(coarse, Linker(), source="x")) == [[(0, 0), (0, 5.6), (0, 5.6)]]


@pytest.mark.parametrize(
    ("spacing", "last_h"),
    [
        (2.0, 96),
        pytest.param(1.0, 96, marks=pytest.mark.slow),
        pytest.param(0.25, 96, marks=pytest.mark.slow),
    ],
)
def test_storms_are_whole_across_greenwich_the_date_line_and_the_poles(spacing, last_h):
    """… and off by less than a tenth of the grid spacing, in the mean."""
    latitude, longitude = np.arange(90, -90 - 1e-9, -spacing), np.arange(0, 360, spacing)
    times = hours(*range(0, last_h + 1, 6))
    lows = [
        Low(45, -6, 85, 40),
        Low(-40, 175, 95, 40),
        Low(86, 30, 0, 25),
        Low(-85, 100, 180, 25),
        Low(15, 60, 290, 20, hours=(12, 42)),
    ]
    fields = moving_lows(lows, latitude, longitude, times)[["msl"]]
    tracks = link(detect(fields, Detector()), Linker(), source="x")
    truth = true_tracks(lows, times)
    assert tracks.groupby("track_id").size().tolist() == [len(times)] * 4 + [6]
    both = tracks.merge(truth, on="time", suffixes=("", "_true"))
    distance = great_circle_km(both.lat, both.lon, both.lat_true, both.lon_true)
    nearest = distance[distance < 150]
    assert len(nearest) == len(tracks)
    assert nearest.mean() < 0.1 * spacing * 111.195


def gaussian(rows):
    return np.rad2deg(np.arcsin(np.polynomial.legendre.leggauss(rows)[0]))


@pytest.mark.parametrize("pole", [-1, 1])
@pytest.mark.parametrize("direction", [-1, 1])
@pytest.mark.parametrize(
    "rows", [64, 94, *(pytest.param(rows, marks=pytest.mark.slow) for rows in (160, 640))]
)
def test_a_low_that_crosses_a_pole_is_one_track_on_gaussian_grids(rows, direction, pole):
    """T42, T62, N80 and N320, whose last row is 0.77 of a row short of the pole."""
    latitude, longitude = gaussian(rows)[::direction], np.arange(2 * rows) * 180 / rows
    low, times = Low(pole * 78, 30, 90 - pole * 90, 25), hours(*range(0, 121, 6))
    fields = moving_lows([low], latitude, longitude, times)[["msl"]]
    tracks = link(detect(fields, Detector()), Linker(), source="x")
    assert tracks["track_id"].nunique() == 1
    assert len(tracks) >= len(times) - (rows == 64)  # there, one contour over the pole is too wide
    both = tracks.merge(true_tracks([low], times), on="time", suffixes=("", "_true"))
    distance = great_circle_km(both.lat, both.lon, both.lat_true, both.lon_true)
    assert distance.mean() < 0.1 * 180 / rows * 111.195
    short = fields.isel(latitude=slice(1, -1))  # a region that leaves out the last rows
    assert link(detect(short, Detector()), Linker(), source="x")["track_id"].nunique() == 2


def test_members_and_initialisations_are_linked_by_themselves():
    table = pd.concat(
        [
            nodes((0, 0, 0), (1, 0, 1)).assign(member=m, init_time=np.datetime64(init, "ns"))
            for m in (0, 1)
            for init in ("2019-12-31", "2020-01-01")
        ]
    )
    tracks = link(table, Linker(), source="x")
    assert tracks["track_id"].nunique() == 4
    assert tracks["track_id"][0] == "20191231T00-m00-0001"


def test_nothing_found_is_an_empty_table():
    tracks = link(nodes((0, np.nan, np.nan), (1, np.nan, np.nan)), Linker(), source="x")
    assert len(tracks) == 0
    assert Selection().choose(tracks).empty
    single = link(nodes((0, 10.0, 0.0)), Linker(), source="x")
    assert len(single) == 1
    assert Selection().choose(single).empty


def test_centres_without_times_cannot_be_linked():
    table = nodes((0, 0, 0)).assign(time=np.datetime64("NaT", "ns"))
    with pytest.raises(DataError, match="no times"):
        link(table, Linker(), source="x")


def test_selection_counts_what_stitchnodes_counts():
    tracks = link(nodes(*[(t, 40, 3.0 * t) for t in range(5)]), Linker(), source="x")
    tracks = tracks.assign(wind=[8, 12, 12, 12, 8.0])

    def kept(**options):
        return len(Selection(**options).choose(tracks)) > 0

    assert kept(min_duration_h=24)
    assert not kept(min_duration_h=25)
    assert kept(min_points=5)
    assert not kept(min_points=6)
    length = great_circle_km(40, 0, 40, 3).item() * 4 / 111.195
    assert kept(min_path_deg=length - 0.01)
    assert not kept(min_path_deg=length + 0.01)
    straight = great_circle_km(40, 0, 40, 12).item() / 111.195
    assert straight < length
    assert not kept(min_endpoint_deg=straight + 0.01)
    assert kept(thresholds=(Threshold("wind", ">=", 10, 3),))
    assert not kept(thresholds=(Threshold("wind", ">=", 10, 4),))
    assert not kept(thresholds=(Threshold("wind", ">=", 10, "all"),))
    assert kept(
        thresholds=(Threshold("wind", "<", 10, "first"), Threshold("wind", "<", 10, "last"))
    )
    with pytest.raises(DataError, match=r"'wnd'.*Did you mean 'wind'"):
        kept(thresholds=(Threshold("wnd", ">", 0),))


def test_wind_thresholds_follow_walsh():
    assert wind_factor(0.25) == 1
    assert wind_factor(300 / 111.195) == pytest.approx(10 / (17.5 - 7.5 * 27.8 / 300), rel=1e-3)
    assert wind_factor(10) == pytest.approx(wind_factor(300 / 111.195), rel=1e-5)
    recipe = RECIPES["tropical"].on_grid(1.0)
    values = [t.value for t in recipe.selection.thresholds]
    assert values[0] == pytest.approx(
        10 * (17.5 - 7.5 * 111.2 / 300) / (17.5 - 7.5 * 27.8 / 300), rel=1e-3
    )
    assert values[1:] == [50, -50]
