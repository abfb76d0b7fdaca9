"""Real storms: one over North America in January 1996, and the hurricanes of that year."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from climlstm_storms.centres import Detector
from climlstm_storms.formats import read_tracks
from climlstm_storms.linking import Linker, link
from climlstm_storms.scores import summarise
from climlstm_storms.search import detect
from climlstm_storms.verification import Region, Rules, verify

from climlstm.evaluation.bootstrap import GroupBootstrap
from climlstm.grid import great_circle_km


@pytest.fixture(scope="module")
def january(real_data):
    """Sea-level pressure and wind; 6-hourly, 2.5° × 1.25°, without units, a corner missing."""
    folder = real_data / "storm_jan1996"
    fields = xr.open_dataset(folder / "Pstorm.cdf", engine="netcdf4").load()
    hours = fields.timestep.values.astype("m8[h]")
    fields = fields.rename(timestep="time")
    fields = fields.assign_coords(time=np.datetime64("1996-01-05T00", "ns") + hours)
    for name, file in (("u10", "Ustorm.cdf"), ("v10", "Vstorm.cdf")):
        with xr.open_dataset(folder / file, engine="netcdf4") as wind:
            fields[name] = (fields.p.dims, wind[name[0]].values)
    return fields


@pytest.mark.parametrize("closed_edges", [False, True])
def test_the_low_from_colorado_to_quebec(january, closed_edges):
    """17 January 00 UTC at 40° N 105° W, 983 hPa; 20 January 00 UTC at 60° N 67.5° W, 971 hPa.

    Its last positions are on the northern edge of the data, where a contour cannot be shown to
    close; in between it has two centres over the Great Lakes, and no closed contour for 12 h.
    """
    nodes = detect(january, Detector(closed_edges=closed_edges), names={"msl": "p"})
    tracks = link(nodes, Linker(range_deg=9.0), source="NCEP")
    start = tracks[tracks["time"] == pd.Timestamp("1996-01-17T00")]
    start = start[great_circle_km(start["lat"], start["lon"], 40.0, -105.0) < 100]
    storm = tracks[tracks["track_id"].isin(start["track_id"])].set_index("time")
    assert storm["slp"][pd.Timestamp("1996-01-17T00")] == pytest.approx(982.8, abs=0.5)
    last = pd.Timestamp("1996-01-20T00" if closed_edges else "1996-01-19T18")
    where = (60.0, -67.5, 971.2) if closed_edges else (56.25, -70.0, 978.5)
    assert great_circle_km(*where[:2], storm["lat"][last], storm["lon"][last]) < 100
    assert storm["slp"][last] == pytest.approx(where[2], abs=0.5)
    between = storm.loc[pd.Timestamp("1996-01-17T00") : last]
    lakes = january.p.sel(lon=slice(-110, -60)).sel(time=between.index.values)
    lowest = lakes.min(["lat", "lon"]).values / 100
    np.testing.assert_allclose(between["slp"], lowest, atol=2.0)  # the deepest low of the region
    assert len(between) >= 9


def test_stitchnodes_loses_that_low(january):
    """Its range does not grow over the 18 h in which the low has no closed contour."""
    nodes = detect(january, Detector(closed_edges=True), names={"msl": "p"})
    tracks = link(nodes, Linker(method="tempest", range_deg=9.0), source="NCEP")
    start = tracks[tracks["time"] == pd.Timestamp("1996-01-17T00")]
    start = start[great_circle_km(start["lat"], start["lon"], 40.0, -105.0) < 100]
    ends = tracks[tracks["track_id"].isin(start["track_id"])].groupby("track_id")["time"].max()
    assert ends.max() == pd.Timestamp("1996-01-18T18")


def test_tracks_are_those_of_stitchnodes_itself(january):
    """Kept: StitchNodes (TempestExtremes 80d2b54) on these centres, --range 9.1 --mintime 2
    --maxgap 24h; positions of the centres on the grid."""
    nodes = detect(january, Detector(closed_edges=True), names={"msl": "p"})
    tracks = link(nodes, Linker(method="tempest", range_deg=9.1), source="NCEP")
    file = Path(__file__).with_name("stitchnodes_january_1996.csv")
    kept = pd.read_csv(file, parse_dates=["time"])
    found, expected = (
        {tuple(zip(g["time"], g["i"], g["j"], strict=True)) for _, g in t.groupby("track_id")}
        for t in (tracks, kept)
    )
    assert len(found) == 21
    assert found == expected


def test_the_hurricanes_of_1996_in_era5(real_data):
    """89 tracks of the globe against the Atlantic season: nine of thirteen storms found.

    ERA5 misses the weakest (Arthur, Gustav, Kyle) and Marco; it is too weak in all.
    """
    era5 = read_tracks(real_data / "best_tracks" / "ERA5_1996_UZ.csv")
    assert era5["track_id"].nunique() == 89
    best = read_tracks(real_data / "best_tracks" / "hurdat2_atlantic_1970_2018.txt")
    best = best[best["time"].dt.year == 1996]
    atlantic = Region("Atlantic", latitude=(0, 60), longitude=(-100, 0))
    found = verify(era5, best, Rules(region=atlantic))
    names = best.drop_duplicates("track_id").set_index("track_id")["name"]
    missed = {names[storm] for storm in set(names.index) - set(found.pairs["storm_id"])}
    assert missed == {"ARTHUR", "GUSTAV", "KYLE", "MARCO"}
    scores = summarise(found, GroupBootstrap(), "Atlantic").set_index("metric")
    assert scores["value"]["pod_storms"] == pytest.approx(9 / 13)
    assert scores["ci_low"]["pod_storms"] < 9 / 13 < scores["ci_high"]["pod_storms"]
    assert scores["value"]["position_error_median"] < 50
    assert abs(scores["value"]["along_track_error"]) < 20
    assert scores["value"]["slp_bias"] > 5
    assert scores["value"]["wind_bias"] < -5
    edouard = found.errors[found.errors["storm_id"] == "AL051996"]
    assert len(edouard) > 60
    assert edouard["distance_km"].median() < 45


def test_the_globe_of_an_ecmwf_forecast(real_data):
    """0.4°, four steps with uneven times, packed in 16 bits: plausible lows in both hemispheres."""
    file = real_data / "ecmwf_msl_global_2022_08" / "mslp.nc"
    with xr.open_dataset(file, engine="netcdf4") as fields:
        nodes = detect(fields.isel(time=[0, 1]), Detector())
    per_step = nodes.groupby("time").size()
    assert per_step.between(40, 150).all()
    assert nodes["slp"].between(930, 1020).all()
    assert (nodes["depth"] >= 2).all()
    south = nodes[nodes["lat"].between(-75, -40)]
    assert len(south) > 15  # the storm track of the southern winter
    assert south["slp"].min() < 970
