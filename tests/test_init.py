"""`climlstm init`: files for a first run that check accepts, on small data and on all real sets."""

import shutil

import numpy as np
import pandas as pd
import pytest
import xarray as xr
import yaml
from typer.testing import CliRunner

from climlstm import runs
from climlstm.cli import app
from climlstm.config import load_config
from climlstm.data.words import describe_times
from climlstm.errors import ConfigError, DataError
from climlstm.runs import check_run, find_trained, init, train
from climlstm.runs.proposal import choose_periods
from climlstm.steps import Step


def small(number=400, freq="6h", name="msl", units="Pa", **attributes) -> xr.Dataset:
    """Pressure that a wave carries round the globe, and noise."""
    times = pd.date_range("2001-01-01", periods=number, freq=freq)
    latitude, longitude = np.linspace(60, -60, 8), np.arange(16) * 22.5
    t, y, x = np.ogrid[:number, :8, :16]
    wave = 1000 * np.sin(np.deg2rad(x * 22.5) - t / 8) * np.cos(np.deg2rad(latitude[y]))
    noise = np.random.default_rng(0).normal(0, 50, (number, 8, 16))
    values = (101_300 + wave + noise) / (100 if units is None else 1)
    said = {} if units is None else {"units": units}
    return xr.Dataset(
        {name: (("time", "latitude", "longitude"), values.astype("float32"), said | attributes)},
        {"time": times, "latitude": latitude, "longitude": longitude},
    )


@pytest.fixture
def write(tmp_path):
    """Writes a dataset as NetCDF and returns its path."""

    def to_file(source: xr.Dataset, name: str = "mine.nc") -> str:
        source.to_netcdf(tmp_path / name, engine="netcdf4")
        return str(tmp_path / name)

    return to_file


def test_a_file_becomes_a_run_that_is_checked_and_trained(write, tmp_path):
    started = init(write(small()), tmp_path / "first")
    assert started.assumed == ()
    config = load_config(started.run_file, ["training.epochs=1"])
    assert config.data.state == ("msl",)
    assert config.data.forcing == ("cos_zenith", "season")
    assert check_run(config).passed
    checkpoint = train(config, under_ray=False)
    forecasts = runs.forecast(checkpoint, tmp_path / "forecasts.zarr")
    assert forecasts.sizes["lead_time"] == config.forecast.steps == 20
    assert find_trained(checkpoint).config.name == "mine"


def test_nothing_is_overwritten(write, tmp_path):
    source = write(small())
    started = init(source, tmp_path)
    before = started.run_file.read_text()
    with pytest.raises(ConfigError, match=r"run.yaml exists already|catalog.yaml exists already"):
        init(source, tmp_path)
    assert started.run_file.read_text() == before
    assert init(source, tmp_path / "other").run_file.exists()  # as the message says: --out


def test_a_refused_source_leaves_no_file(write, tmp_path):
    with pytest.raises(DataError, match="too few times for a training"):
        init(write(small(6)), tmp_path / "new")
    assert list((tmp_path / "new").iterdir()) == []


def test_units_that_only_one_reading_allows_are_declared_and_told(write, tmp_path):
    started = init(write(small(units=None)), tmp_path / "first")
    assert started.assumed == ("'msl' has no units; its values are those of hPa",)
    entry = yaml.safe_load(started.catalog.read_text())["sources"]["mine"]
    assert entry["metadata"] == {"variables": {"msl": {"units": "hPa"}}}
    assert "# assumed: 'msl' has no units" in started.catalog.read_text()
    assert check_run(load_config(started.run_file), quick=True).passed


def test_one_of_several_members_is_chosen_unless_another_is_declared(write, tmp_path):
    members = xr.concat([small(), small() + 100], pd.Index([3, 7], name="number"))
    members["msl"].attrs["units"] = "Pa"
    source = write(members)
    started = init(source, tmp_path / "first")
    assert "select" in started.assumed[0]
    entry = yaml.safe_load(started.catalog.read_text())["sources"]["mine"]
    assert entry["metadata"] == {"select": {"number": 3}}
    started = init(source, tmp_path / "second", declare=["select: {number: 7}"])
    entry = yaml.safe_load(started.catalog.read_text())["sources"]["mine"]
    assert entry["metadata"] == {"select": {"number": 7}}
    with pytest.raises(ConfigError, match="expected a line of a catalog's metadata"):
        init(source, tmp_path / "third", declare=["7"])


def test_files_below_the_folder_move_with_it(write, tmp_path, monkeypatch):
    write(small())
    monkeypatch.chdir(tmp_path)
    started = init("mine.nc")
    assert "{{ CATALOG_DIR }}/mine.nc" in started.catalog.read_text()
    (tmp_path / "moved").mkdir()
    for name in ("mine.nc", "catalog.yaml", "run.yaml"):
        shutil.move(tmp_path / name, tmp_path / "moved" / name)
    assert check_run(load_config("moved/run.yaml"), quick=True).passed


def test_of_a_catalogued_source_only_the_run_file_is_written(weather, tmp_path):
    started = init(f"{weather}/catalog.yaml:atmosphere", tmp_path)
    assert started.catalog is None
    assert [path.name for path in tmp_path.iterdir()] == ["run.yaml"]
    config = load_config(started.run_file)
    assert (config.name, config.data.static) == ("atmosphere", ("land_mask", "orography"))
    assert check_run(config, quick=True).passed


@pytest.mark.parametrize(
    ("number", "freq", "held_back", "valid"),
    [
        (1000, "1D", 100, ("2003-03-12", "2003-06-19")),
        (100, "1MS", 10, ("2007-09-01", "2008-06-30")),
        (24, "1h", 3, ("2001-01-01T18:00", "2001-01-01T20:00")),
        (2000, "6h", 200, ("2002-02-05", "2002-03-26")),
    ],
)
def test_the_last_steps_test_and_those_before_validate(number, freq, held_back, valid):
    times = pd.date_range("2001-01-01", periods=number, freq=freq)
    step = Step.parse(describe_times(xr.DataArray(times, dims="time")).step)
    assert choose_periods(times.to_numpy(), step, held_back)["valid"] == valid


def test_the_command_tells_what_comes_next(write, tmp_path):
    run = CliRunner().invoke(app, ["init", write(small()), "--out", str(tmp_path / "first")])
    assert run.exit_code == 0, run.output
    assert f"climlstm train {tmp_path}/first/run.yaml" in run.output


REAL_SETS = (
    "cmip6_calendars_daily/ta_Amon_MIROC6_ssp119_r1i1p1f1_gn_201501-202412.nc",
    "cordex_rotated_pole/psl_EUR-11_MOHC-HadGEM2-ES_rcp85_r1i1p1_IPSL-WRF381P_v1_day_2011*.nc",
    "cmip6_tos_curvilinear/tos_Omon_MPI-ESM1-2-LR_historical_r1i1p1f1_gn_185001-186912.nc",
    "era5_finse_2018_autumn/*.nc",
    "eraint_europe_daily_2000_2010/*.nc",
    "era5_psl_monthly_coarse/psl_ERA5_mon_194001-202212.nc",
    "ncep_slp_north_pacific_monthly/slp.nc",
    "pacific_sst_monthly_1970_2003/pacific_sst_anomaly.nc",
    "projected_grids/test_lcc.nc",
    "wfde5_britain_2017_01/*.nc",
)


@pytest.mark.slow
@pytest.mark.parametrize("files", REAL_SETS)
def test_real_sets_become_runs_that_check_accepts(files, real_data, tmp_path):
    started = init(str(real_data / files), tmp_path)
    assert check_run(load_config(started.run_file), quick=True).passed
