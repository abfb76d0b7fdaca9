"""eccodes and pyproj bring two builds of PROJ: no order of imports may crash the process."""

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from climlstm.forecasting import to_weatherbench

CATALOGS = Path(__file__).parents[1] / "catalogs"
MAP = "cartopy.crs.Robinson().transform_point(0, 50, cartopy.crs.PlateCarree())"

pytestmark = pytest.mark.skipif(
    find_spec("gribapi") is None or find_spec("cartopy") is None,
    reason="needs climlstm[grib,plot]",
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A NetCDF file and a forecast store of a few cells."""
    folder = tmp_path_factory.mktemp("files")
    axes = {"latitude": np.linspace(80, 30, 6), "longitude": np.linspace(-20, 40, 7)}
    field = xr.DataArray(np.full((6, 7), 280.0), axes, attrs={"units": "K"})
    field.to_dataset(name="t2m").to_netcdf(folder / "mine.nc", engine="netcdf4")
    forecasts = field.to_dataset(name="t2m").expand_dims(
        init_time=np.array(["2020-01-01"], "M8[ns]"), lead_time=np.array([24], "m8[h]")
    )
    to_weatherbench(forecasts).to_zarr(folder / "forecasts.zarr")
    return folder


@pytest.mark.parametrize(
    "program",
    [
        pytest.param(
            """
import climlstm
import xarray as xr
xr.open_dataset("mine.nc", engine="netcdf4").climlstm.plot_field("t2m", region="europe")
""",
            id="README",
            marks=pytest.mark.slow,
        ),
        pytest.param(
            """
import xarray as xr, climlstm
xr.open_dataset("mine.nc").climlstm.plot_field("t2m")
""",
            id="no engine named",
            marks=pytest.mark.slow,
        ),
        pytest.param(
            """
import eccodes
from climlstm import plots
import xarray as xr
plots.plot_field(xr.open_dataset("mine.nc")["t2m"])
""",
            id="eccodes before all",
            marks=pytest.mark.slow,
        ),
        pytest.param(
            f"""
from climlstm.data.sources.catalog import open_source
open_source({str(CATALOGS / "examples/real.yaml")!r}, "era5_t2m_uk_2019_03").load()
import cartopy.crs
{MAP}
""",
            id="GRIB, then a map",
        ),
        pytest.param(
            f"""
import climlstm
import xarray as xr
xr.backends.list_engines()
import cartopy.crs
{MAP}
""",
            id="all engines, then a map",
            marks=pytest.mark.slow,
        ),
        pytest.param(
            """
import sys
from climlstm.cli import main
sys.argv = ["climlstm", *"plot forecasts.zarr --variable t2m --no-truth --out m.png".split()]
main()
""",
            id="plot",
        ),
    ],
)
def test_a_process_ends_as_it_should(program, folder, real_data):
    environment = os.environ | {"CLIMLSTM_REAL_DATA": str(real_data)}
    ran = subprocess.run([sys.executable, "-c", program], cwd=folder, env=environment)
    assert ran.returncode == 0
    assert not list((real_data / "era5_t2m_uk_2019_03").glob("*.idx"))
