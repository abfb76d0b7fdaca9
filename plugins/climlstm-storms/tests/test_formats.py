"""Every format read and written: units, missing codes, traps; the real files; huracanpy."""

import huracanpy
import numpy as np
import pandas as pd
import pytest
import xarray as xr
from climlstm_storms.formats import read_tracks
from climlstm_storms.standard import KNOT, ONE_TO_TEN_MINUTES
from climlstm_storms.tracks import TRACK_TYPES, track_table
from climlstm_storms.write import basin_of, to_huracanpy, to_trajectories, write_tracks

from benchmarks.lows import Low, true_tracks
from climlstm.errors import DataError

TEN = KNOT * ONE_TO_TEN_MINUTES

HURDAT2 = """\
AL092021,                IDA,      3,
20210829, 1200,  , HU, 28.5N,  89.6W, 130,  929,  110,   80,   60,  110,
20210829, 1655, L, HU, 29.1N,  90.2W, 130,  931,  110,   80,   60,  110,
20210829, 1800,  , HU, 29.2N,  90.4W, 125, -999, -999, -999, -999, -999,
EP012021,             ANDRES,      1,
20210509, 0600,  , TS, 13.6N, 179.8E, -99, 1005,    0,    0,    0,    0,
"""

IBTRACS = """\
SID,SEASON,NUMBER,BASIN,NAME,ISO_TIME,NATURE,LAT,LON,WMO_WIND,WMO_PRES,WMO_AGENCY,TRACK_TYPE,USA_WIND,USA_PRES,USA_STATUS
 ,Year, , , , , ,degrees_north,degrees_east,kts,mb, , ,kts,mb,
2021239N17281,2021,58,NA,IDA,2021-08-29 12:00:00,TS,28.5,-89.6,130,929,hurdat_atl,main,130,929,HU
2021239N17281,2021,58,NA,IDA,2021-08-29 15:00:00,TS,28.8,-89.9, , , ,main,130,930,HU
2021239N17281,2021,58,NA,IDA,2021-08-29 18:00:00,TS,29.2,-90.4, ,930, ,main,125, ,HU
2021200N20150,2021,40,WP,IN-FA,2021-07-20 00:00:00,TS,24.0,181.0,60,980,tokyo,main,65,975,TY
2021201N20150,2021,40,WP,IN-FA,2021-07-20 00:00:00,TS,24.0,131.0,60,980,tokyo,spur-other,65,975,TY
"""

ADECK = """\
AL, 09, 2021082906, 03, OFCL,   0, 275N,  885W, 115,  948, HU,  34, NEQ, 120, 100,  60, 100
AL, 09, 2021082906, 03, OFCL,  12, 291N,  904W, 130,    0, HU,  34, NEQ, 120, 100,  60, 100
AL, 09, 2021082906, 03, OFCL,  12, 291N,  904W, 130,    0, HU,  50, NEQ,  60,  50,  30,  50
SH, 02, 2020120100, 03, XXXX,   6, 105S, 1795W,   0,  999, TS
"""

BDECK = """\
AL, 09, 2021082912,   , BEST,   0, 285N,  896W, 130,  929, HU,  34, NEQ, 120, 100,  80, 110
AL, 09, 2021082912,   , BEST,   0, 285N,  896W, 130,  929, HU,  64, NEQ,  45,  35,  20,  30
AL, 09, 2021082916, 55, BEST,   0, 291N,  902W, 130,  931, HU,  64, NEQ,  45,  35,  20,  30
"""

TEMPEST = """\
start\t2\t2020\t1\t1\t0
\t350\t40\t350.000000\t50.000000\t9.800000e+04\t2.000000e+01\t2020\t1\t1\t0
\t4\t41\t4.000000\t49.000000\t9.700000e+04\t2.100000e+01\t2020\t1\t1\t6
start\t1\t2020\t1\t2\t18
\t10\t20\t10.000000\t-70.000000\t9.900000e+04\t1.500000e+01\t2020\t1\t2\t18
"""

TEMPEST_CSV = """\
track_id, year, month, day, hour, i, j, lon, lat, slp, wind
0, 2020, 1, 1, 0, 350, 40, 350.0, 50.0, 98000.0, 20.0
0, 2020, 1, 1, 6, 4, 41, 4.0, 49.0, 97000.0, 21.0
"""


def read(tmp_path, text, name="file.txt", **options):
    (tmp_path / name).write_text(text)
    return read_tracks(tmp_path / name, **options)


def columns(table, *names):
    return table[list(names)].to_numpy().tolist()


def test_hurdat2(tmp_path):
    table = read(tmp_path, HURDAT2)
    assert list(table.columns[: len(TRACK_TYPES)]) == list(TRACK_TYPES)
    assert table["track_id"].tolist() == ["AL092021", "AL092021", "EP012021"]  # no landfall row
    assert columns(table, "lat", "lon")[0] == [28.5, -89.6]
    assert table["lon"][2] == 179.8
    assert table["wind"][0] == pytest.approx(130 * TEN)
    assert np.isnan(table["slp"][1])
    assert np.isnan(table["wind"][2])
    assert table["name"][0] == "IDA"


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("IDA,      3,", "IDA,      4,", r"line 5: 1 rows of storm AL092021 are missing"),
        ("IDA,      3,", "IDA,      2,", r"line 4: .* or one more than the header of storm AL09"),
        ("28.5N", "28.5", r"line 2: '28.5' is no position"),
        ("ANDRES,      1,", "ANDRES,      2,", r"ends 1 rows before the end of storm EP012021"),
    ],
)
def test_a_broken_hurdat2_is_refused_with_its_line(tmp_path, old, new, message):
    with pytest.raises(DataError, match=message):
        read(tmp_path, HURDAT2.replace(old, new))


def test_ibtracs_csv(tmp_path):
    usa = read(tmp_path, IBTRACS, agency="usa")
    assert usa["basin"].tolist() == ["WP", "NA", "NA"]  # by storm; NA is no missing value
    assert columns(usa, "lat", "lon")[0] == [24.0, -179.0]
    assert usa["time"].dt.hour.tolist() == [0, 12, 18]  # 15 UTC is interpolated; the spur is gone
    assert usa["wind"][0] == pytest.approx(65 * TEN)
    assert np.isnan(usa["slp"][2])
    wmo = read(tmp_path, IBTRACS, agency="wmo")
    assert wmo["wind"][0] == pytest.approx(60 * KNOT)  # Tokyo reports ten-minute winds
    assert wmo["wind"][1] == pytest.approx(130 * TEN)  # the hurricane center one-minute ones
    assert np.isnan(wmo["wind"][2])
    with pytest.raises(DataError, match="no column 'tokyo_wind'"):
        read(tmp_path, IBTRACS, agency="tokyo")


def test_atcf_decks(tmp_path):
    forecasts = read(tmp_path, ADECK)
    assert len(forecasts) == 3  # one row for all wind radii
    ida = forecasts[forecasts["track_id"] == "AL092021"]
    assert (ida["lead_time"] / pd.Timedelta(hours=1)).tolist() == [0, 12]
    assert (ida["time"] - ida["init_time"]).equals(ida["lead_time"])
    assert np.isnan(ida["slp"].iloc[1])
    south = forecasts[forecasts["track_id"] == "SH022021"].iloc[0]  # its season began in July
    assert (south["lat"], south["lon"], south["slp"]) == (-10.5, -179.5, 999)
    assert np.isnan(south["wind"])
    best = read(tmp_path, BDECK)
    assert best["time"].dt.strftime("%H%M").tolist() == ["1200"]  # as of all best tracks
    whole = read(tmp_path, BDECK, all_times=True)
    assert whole["time"].dt.strftime("%H%M").tolist() == ["1200", "1655"]
    assert best["init_time"].isna().all()


def test_tempest_text_and_csv(tmp_path):
    text = read(tmp_path, TEMPEST)
    assert columns(text, "track_id", "lat", "lon", "slp", "wind", "i", "j")[:2] == [
        ["0001", 50.0, -10.0, 980.0, 20.0, 350, 40],
        ["0001", 49.0, 4.0, 970.0, 21.0, 4, 41],
    ]
    table = read(tmp_path, TEMPEST_CSV, "tracks.csv")
    assert columns(table, "time", "lat", "slp") == columns(text[:2], "time", "lat", "slp")
    with pytest.raises(DataError, match=r"line 2: .*could not convert"):
        read(tmp_path, TEMPEST.replace("9.800000e+04", "low"))


def test_other_files_are_refused(tmp_path):
    with pytest.raises(DataError, match=r"begins with 'hello\\n'.*IBTrACS.*HURDAT2"):
        read(tmp_path, "hello\n")
    with pytest.raises(DataError, match="no file of tracks"):
        read_tracks(tmp_path / "nothing.txt")
    xr.Dataset({"t": ("x", [1.0])}).to_netcdf(tmp_path / "no.nc")
    with pytest.raises(DataError, match="cf_role = 'trajectory_id'"):
        read_tracks(tmp_path / "no.nc")


@pytest.fixture
def tracks():
    """Two forecasts of two storms, with gaps in what is known."""
    times = np.datetime64("2020-01-01", "ns") + np.arange(1, 5) * np.timedelta64(6, "h")
    storms = true_tracks([Low(45, 178, 85, 45), Low(-20, 60, 270, 20)], times)
    tables = []
    for member, init in enumerate(["2020-01-01T00", "2019-12-31T12"]):
        init = pd.Timestamp(init)
        table = storms.assign(init_time=init, lead_time=storms["time"] - init, member=member)
        wind = 20.0 + member + np.arange(8)
        tables.append(table.assign(wind=wind, depth=5.0, i=3, j=4, source="model"))
    table = track_table(pd.concat(tables, ignore_index=True))
    table.loc[2, ["wind", "depth"]] = np.nan
    table["warm_core"] = pd.array([True, False, None, None] * 4, dtype="boolean")
    return table


@pytest.mark.parametrize("name", ["tracks.csv", "tracks.nc"])
def test_what_is_written_is_read_again(tracks, tmp_path, name):
    write_tracks(tracks, tmp_path / name)
    again = read_tracks(tmp_path / name)
    assert len(again) == len(tracks)
    order = ["init_time", "member", "time", "lat"]
    a, b = (t.sort_values(order, ignore_index=True) for t in (again, tracks))
    for column, kind in TRACK_TYPES.items():
        if column == "track_id":
            continue
        if kind == "float64":
            np.testing.assert_allclose(a[column], b[column], rtol=1e-12)
        else:
            assert a[column].equals(b[column]), column
    tells_apart = ["init_time", "member", "track_id"]
    assert len(again[tells_apart].drop_duplicates()) == 4


def test_trajectories_follow_cf(tracks, tmp_path):
    write_tracks(tracks, tmp_path / "tracks.nc")
    with xr.open_dataset(tmp_path / "tracks.nc", engine="netcdf4", decode_coords="all") as raw:
        assert raw.attrs["featureType"] == "trajectory"
        assert raw["row_size"].attrs["sample_dimension"] == "obs"
        assert raw["row_size"].dims == raw["track_id"].dims == ("trajectory",)
        assert int(raw["row_size"].sum()) == raw.sizes["obs"] == 16
        assert raw["track_id"].attrs["cf_role"] == "trajectory_id"
        assert len(np.unique(raw["track_id"])) == 4  # ids of CF are unique
        assert {"time", "lat", "lon"} <= set(raw.coords)
        standard = {n: raw[n].attrs.get("standard_name") for n in ("time", "lat", "lon", "slp")}
        assert standard["slp"] == "air_pressure_at_mean_sea_level"
        assert (standard["lat"], standard["lon"]) == ("latitude", "longitude")


def test_huracanpy_opens_what_we_write(tracks, tmp_path):
    write_tracks(tracks, tmp_path / "tracks.nc")
    opened = huracanpy.load(str(tmp_path / "tracks.nc"))
    ours = to_trajectories(tracks)
    np.testing.assert_allclose(opened["lat"], ours["lat"])
    assert len(np.unique(opened["track_id"])) == 4
    records = to_huracanpy(tracks)
    assert records["time"].dims == ("record",)
    distance = huracanpy.calc.distance(records["lon"], records["lat"], track_id=records["track_id"])
    assert np.nanmax(distance) == pytest.approx(6 * 45e3, rel=0.01)
    records.hrcn.save(str(tmp_path / "theirs.nc"))
    assert len(read_tracks(tmp_path / "theirs.nc")) == 16


def test_an_a_deck_comes_back_within_its_digits(tracks, tmp_path):
    one = tracks[tracks["member"] == 0]
    write_tracks(one, tmp_path / "tracks.dat")
    lines = (tmp_path / "tracks.dat").read_text().splitlines()
    assert lines[0] == "WP, 01, 2020010100, 03, CLIM,   6, 450N, 1780E,  42,  983, XX"
    again = read_tracks(tmp_path / "tracks.dat")
    again = again.sort_values(["slp", "time", "lat"], ignore_index=True)
    one = one.sort_values(["slp", "time", "lat"], ignore_index=True)
    assert (again["lead_time"] == one["lead_time"]).all()
    np.testing.assert_allclose(again["lat"], one["lat"], atol=0.051)
    np.testing.assert_allclose(again["lon"], one["lon"], atol=0.051)
    np.testing.assert_allclose(again["slp"], one["slp"], atol=0.51)
    np.testing.assert_allclose(again["wind"], one["wind"], atol=0.51 * TEN)


def test_what_an_a_deck_cannot_hold_is_refused(tracks, tmp_path):
    analysis = tracks.assign(init_time=pd.NaT)
    with pytest.raises(DataError, match="no init_time"):
        write_tracks(analysis.astype({"init_time": "M8[ns]"}), tmp_path / "x.dat")
    odd = tracks.assign(lead_time=tracks["lead_time"] + pd.Timedelta(minutes=30))
    with pytest.raises(DataError, match="whole hours"):
        write_tracks(odd, tmp_path / "x.dat")
    with pytest.raises(DataError, match=r"\.csv, \.nc"):
        write_tracks(tracks, tmp_path / "x.xls")


@pytest.mark.parametrize(
    ("latitude", "longitude", "basin"),
    [
        *((25, -75, "AL"), (15, -60, "AL"), (60, -20, "AL"), (25, -95, "AL")),
        *((15, -95, "EP"), (10, -86, "EP"), (20, -170, "EP"), (12, -83, "AL")),
        *((20, 130, "WP"), (15, 65, "IO"), (-15, 60, "SH")),
    ],
)
def test_basins(latitude, longitude, basin):
    assert basin_of(latitude, longitude) == basin


def test_real_hurdat2(real_data):
    table = read_tracks(real_data / "best_tracks" / "hurdat2_atlantic_1970_2018.txt")
    assert table["track_id"].nunique() == 798
    allen = table[table["track_id"] == "AL041980"]
    assert allen["wind"].max() == pytest.approx(165 * TEN)
    assert table.loc[table["slp"].idxmin(), "name"] == "WILMA"
    assert table["slp"].min() == 882


def test_real_ibtracs(real_data):
    ike = read_tracks(real_data / "best_tracks" / "ibtracs_ike_2008.nc")
    assert ike["basin"].unique().tolist() == ["NA"]
    assert ike["slp"].min() == 935
    assert ike["wind"].max() == pytest.approx(125 * TEN)
    assert len(ike) == 58
    hurdat = read_tracks(real_data / "best_tracks" / "hurdat2_atlantic_1970_2018.txt")
    same = ike.merge(hurdat[hurdat["track_id"] == "AL092008"], on="time")
    np.testing.assert_allclose(same["lat_x"], same["lat_y"], atol=0.11)
    np.testing.assert_allclose(same["wind_x"], same["wind_y"], rtol=1e-6)
    two = read_tracks(
        real_data / "best_tracks" / "IBTrACS.last3years.v04r00_2_storms.nc", agency="wmo"
    )
    assert two["track_id"].nunique() == 2
    assert set(two["name"]) == {"IMOGEN", "NOT_NAMED"} or "IMOGEN" in set(two["name"])
    assert (two["time"].dt.hour % 6 == 0).all()
