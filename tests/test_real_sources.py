"""Real files of many makes become the same kind of cube, with the weather that is known of them."""

from datetime import date, datetime
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from climlstm.config import DataConfig, Periods, RegionConfig, load_config
from climlstm.data.cube.cube import build_cube
from climlstm.data.sources.catalog import open_source
from climlstm.errors import CatalogError, DataError

needs_cfgrib = pytest.mark.skipif(find_spec("cfgrib") is None, reason="needs climlstm[grib]")
"""Not importorskip: eccodes imported before pyproj crashes the process at its end."""

EXAMPLES = Path(__file__).parents[1] / "catalogs" / "examples"

CATALOG = """
sources:
  new_layout:
    driver: netcdf
    args: {urlpath: "{{ env(CLIMLSTM_REAL_DATA) }}/era5_pl_w_europe_2020_07/era5_data.nc"}

  meteonet:
    driver: merge
    args: {sources: [meteonet_p, meteonet_10m, meteonet_2m]}
  meteonet_p:
    driver: grib
    args:
      urlpath: "{{ env(CLIMLSTM_REAL_DATA) }}/METEONET/arpege_P_sea_level_NW_20180501000000.grib"
  meteonet_10m:
    driver: grib
    args:
      urlpath: "{{ env(CLIMLSTM_REAL_DATA) }}/METEONET/arpege_10m_NW_20180501000000.grib"
  meteonet_2m:
    driver: grib
    args:
      urlpath: "{{ env(CLIMLSTM_REAL_DATA) }}/METEONET/arpege_2m_NW_20180501000000.grib"

  ensemble: &ensemble
    driver: grib
    args: {urlpath: "{{ env(CLIMLSTM_REAL_DATA) }}/era5_ensemble_2017_01/era5-levels-members.grib"}
  member: {<<: *ensemble, metadata: {select: {number: 3}}}

  pacific:
    driver: netcdf
    args: {urlpath: "{{ env(CLIMLSTM_REAL_DATA) }}/ncep_slp_north_pacific_monthly/slp.nc"}
    metadata: {variables: {slp: {units: hPa}}}

  davos:
    driver: netcdf
    args: {urlpath: "{{ env(CLIMLSTM_REAL_DATA) }}/era5_davos_2020_01/PLEV_202001.nc"}

  finse:
    driver: netcdf
    args: {urlpath: "{{ env(CLIMLSTM_REAL_DATA) }}/era5_finse_2018_autumn/SURF_2018*.nc"}

  asia:
    driver: grib
    args: {urlpath: "{{ env(CLIMLSTM_REAL_DATA) }}/era5_wind_asia_2015_08/2015080*-pl.grib"}

  north_sea:
    driver: netcdf
    args: {urlpath: "{{ env(CLIMLSTM_REAL_DATA) }}/era5_nw_europe_2020_01_01/ERA5_2020-01-01_*.nc"}

  forecast:
    driver: netcdf
    args: {urlpath: "{{ env(CLIMLSTM_REAL_DATA) }}/ecmwf_msl_global_2022_08/mslp.nc"}

  britain:
    driver: netcdf
    args: {urlpath: "{{ env(CLIMLSTM_REAL_DATA) }}/wfde5_britain_2017_01/air_temperature.nc"}
    metadata: {variables: {Tair: {name: t2m}}}
"""


@pytest.fixture
def real(real_data, monkeypatch):
    monkeypatch.setenv("CLIMLSTM_REAL_DATA", str(real_data))
    return real_data


@pytest.fixture
def catalog(real, tmp_path):
    path = tmp_path / "real.yaml"
    path.write_text(CATALOG.replace("METEONET", "meteonet_nw_france_2018_05_01"))
    return str(path)


@pytest.fixture
def cube_of(catalog):
    """Cube of a source in the catalog above."""

    def cube(name, *state, step="6h", region=None, **options):
        whole = [(date(year, 1, 1), date(year, 12, 31)) for year in (1900, 1901, 1902)]
        if region is not None:
            region = RegionConfig(latitude=region[0], longitude=region[1])
        data = DataConfig(
            catalog=catalog,
            source=name,
            state=state,
            step=step,
            region=region,
            periods=Periods(train=whole[0], valid=whole[1], test=whole[2]),
            **options,
        )
        return build_cube(open_source(catalog, name), data)

    return cube


def example_cube(name):
    config = load_config(EXAMPLES / f"{name}.yaml")
    return build_cube(open_source(config.data.catalog, config.data.source), config.data).load()


def test_january_storm(real):
    cube = example_cube("storm_jan1996")
    assert dict(cube.sizes) == {"time": 64, "latitude": 33, "longitude": 36}
    assert cube["time"].values[[0, -1]].astype("M8[h]").tolist() == [
        datetime(1996, 1, 5, 0),
        datetime(1996, 1, 20, 18),
    ]
    assert cube["latitude"].values[[0, -1]].tolist() == [60, 20]
    colorado = cube["msl"].sel(time="1996-01-17T00", latitude=40, longitude=-105)
    quebec = cube["msl"].sel(time="1996-01-20T00", latitude=60, longitude=-67.5)
    assert round(float(colorado) / 100) == 983
    assert round(float(quebec) / 100) == 971
    assert float(cube["msl"].sel(time="1996-01-20T00").min()) == float(quebec)
    # two winds near the surface, two at 500 hPa, where the jet is
    assert float(np.hypot(cube["u10"], cube["v10"]).mean()) < 12
    assert float(np.hypot(cube["u500"], cube["v500"]).mean()) > 17


def test_january_storm_keeps_what_is_missing(real):
    cube = example_cube("storm_jan1996")
    never = {name: int(cube[name].isnull().all("time").sum()) for name in cube}
    assert set(never.values()) == {224}
    absent = {
        name: [
            int(h) for h in np.flatnonzero(cube[name].isnull().all(["latitude", "longitude"])) * 6
        ]
        for name in cube
    }
    assert absent == {
        "t2m": [102],
        "msl": [],
        "u10": [],
        "v10": [102, 222],
        "u500": [],
        "v500": [216],
    }


@needs_cfgrib
def test_march_over_britain(real):
    cube = example_cube("era5_t2m_uk_2019_03")
    assert dict(cube.sizes) == {"time": 744, "latitude": 33, "longitude": 49}
    assert cube["latitude"].values[[0, -1]].tolist() == [58, 50]
    assert cube["longitude"].values[[0, -1]].tolist() == [-10, 2]
    london = cube["t2m"].sel(latitude=51.5, longitude=0)
    by_hour = london.groupby("time.hour").mean().values
    assert by_hour.argmin() in (4, 5, 6)
    assert by_hour.argmax() in (13, 14, 15)
    assert 278 < float(london.mean()) < 284
    assert not list((real / "era5_t2m_uk_2019_03").glob("*.idx"))


def test_new_climate_data_store_layout(cube_of):
    cube = cube_of("new_layout", "t850", "t500", "q700").load()
    assert dict(cube.sizes) == {"time": 12, "latitude": 21, "longitude": 31}
    assert float(cube["t850"].mean() - cube["t500"].mean()) == pytest.approx(28, abs=4)
    assert 0 < float(cube["q700"].max()) < 0.02


@needs_cfgrib
def test_forecast_steps_of_three_files_at_three_heights(cube_of):
    cube = cube_of("meteonet", "msl", "u10", "v10", "t2m", "d2m", "ws10", step="1h").load()
    hours = cube["time"].values.astype("M8[h]")
    assert (str(hours[0]), str(hours[-1]), hours.size) == ("2018-05-01T00", "2018-05-02T00", 25)
    assert (cube["t2m"] >= cube["d2m"] - 0.5).all()
    assert 98000 < float(cube["msl"].min()) < float(cube["msl"].max()) < 105000


@needs_cfgrib
def test_derived_wind_speed_agrees_with_the_one_in_the_file(cube_of, catalog):
    cube = cube_of("meteonet_10m", "ws10", step="1h")
    np.testing.assert_allclose(cube["ws10"], open_source(catalog, "meteonet_10m")["ws"], atol=0.02)


@needs_cfgrib
def test_ensemble_needs_a_choice(cube_of):
    with pytest.raises(
        DataError, match=r"'number' with 10 ensemble members.*select: \{number: 0\}"
    ):
        cube_of("ensemble", "z500", step="12h")
    cube = cube_of("member", "z500", "t850", step="12h", region=((80, 20), (350, 20))).load()
    assert cube["longitude"].values.tolist() == list(range(-9, 19, 3))
    assert 48000 < float(cube["z500"].min()) < float(cube["z500"].max()) < 58000


def test_months_are_no_even_steps(cube_of):
    with pytest.raises(DataError, match=r"No two successive times .* 1d apart.*steps of 1 month"):
        cube_of("pacific", "msl", step="1D")


def test_region_across_the_date_line(cube_of):
    cube = cube_of("pacific", "msl", step="1 month", region=((60, 30), (170, -160))).load()
    assert cube["longitude"].values.tolist() == [170 + 2.5 * i for i in range(13)]
    # the Aleutian low lies near the date line in winter
    assert 97000 < float(cube["msl"].min()) < 100500


def test_packed_levels_off_the_usual_grid(cube_of):
    cube = cube_of("davos", "z500", "t300", "r700", step="3h").load()
    assert dict(cube.sizes) == {"time": 248, "latitude": 4, "longitude": 5}
    assert cube["longitude"].values[1] == pytest.approx(9.54225)
    assert 51000 < float(cube["z500"].mean()) < 57500
    assert not cube["z500"].isnull().any()


def test_months_packed_differently_follow_each_other(cube_of):
    cube = cube_of("finse", "t2m", "sp", step="1h", static=("orography",)).load()
    assert cube.sizes["time"] == 744 + 720 + 744
    assert (np.diff(cube["time"]) == np.timedelta64(1, "h")).all()
    assert float(np.abs(cube["t2m"].diff("time")).max()) < 12  # no jump where files meet
    assert cube["orography"].dims == ("latitude", "longitude")
    # pressure follows height: 1200 m cost about 130 hPa
    heights = cube["orography"].values.ravel()
    assert np.corrcoef(heights, cube["sp"].mean("time").values.ravel())[0, 1] < -0.99


@needs_cfgrib
def test_grib_days_follow_each_other(cube_of):
    cube = cube_of("asia", "u925", "v925", "w900")
    assert dict(cube.sizes) == {"time": 8, "latitude": 181, "longitude": 281}
    with pytest.raises(DataError, match="no channel 'u850': it has 'u' at 1000, 925, 900 hPa"):
        cube_of("asia", "u850")
    coarse = cube_of("asia", "w900", coarsen=4, region=((60, 15.25), (50, 119.75)))
    assert dict(coarse.sizes) == {"time": 8, "latitude": 45, "longitude": 70}


def test_one_file_a_variable(cube_of):
    cube = cube_of("north_sea", "u10", "v10", "d2m", "tcw", "sp", "q850", "u500", step="1h").load()
    assert cube.sizes["time"] == 24
    assert 260 < float(cube["d2m"].mean()) < 285
    with pytest.raises(DataError, match="no channel 't2m'"):
        cube_of("north_sea", "t2m", step="1h")


def test_uneven_global_forecast(cube_of, catalog):
    cube = cube_of("forecast", "msl", step="12h", region=((60, 30), (-30, 30)))
    assert cube.sizes["time"] == 4
    assert cube["longitude"].values[[0, -1]].tolist() == [-30, 30]
    source = open_source(catalog, "forecast")["msl"]
    np.testing.assert_allclose(
        cube["msl"].sel(latitude=50, longitude=-10),
        source.sel(latitude=50, longitude=350, method="nearest"),
        rtol=1e-6,
    )


def test_land_only(cube_of):
    cube = cube_of("britain", "t2m").load()
    assert float(cube["t2m"].isnull().all("time").mean()) == pytest.approx(0.55, abs=0.01)


def test_absent_folder_says_what_to_set(monkeypatch, tmp_path):
    monkeypatch.setenv("CLIMLSTM_REAL_DATA", str(tmp_path))
    with pytest.raises(CatalogError, match=r"Tstorm.cdf'. Check the urlpath, the parameters and"):
        open_source(str(EXAMPLES / "real.yaml"), "storm_jan1996")
