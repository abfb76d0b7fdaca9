"""Draws the pictures of the gallery and writes its page: each beside the code that made it.

The data are real files (CLIMLSTM_REAL_DATA) and what `make demo` leaves in the folder `demo`.

    make pictures          # or: python docs/pictures.py [NAME ...]
"""

import argparse
import inspect
import os
import textwrap
from collections.abc import Callable
from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd
import xarray as xr
from matplotlib.figure import Figure
from PIL import Image

import climlstm
from climlstm import plots
from climlstm.plots.output import with_few_colours

PAGE = Path(__file__).parent / "gallery.md"
FOLDER = Path(__file__).parent / "gallery"

INTRODUCTION = """\
# Gallery

Every picture was made by the code below it, offline. `real` is a folder of files as they were
published, `demo` the one that `make demo` fills. [Maps](howto/maps.md) explains the keywords.
`make pictures` draws all of it again.
"""

CREDIT = """\
## Credits

Contains modified Copernicus Climate Change Service information (ERA5); neither the European
Commission nor ECMWF is responsible for any use of it. ECMWF open data, CC BY 4.0. ERA-Interim:
ECMWF, Dee et al. (2011). NEMO output: SciTools, UK Open Government Licence. Tracks in ERA5:
huracanpy. Coasts: Natural Earth, public domain.
"""


def pressure_of_the_globe(real: Path, demo: Path) -> Figure:
    """The globe: Robinson, the usual colours and limits of the variable, its lines every 4 hPa"""
    data = xr.open_dataset(real / "ecmwf_msl_global_2022_08/mslp.nc", engine="netcdf4")
    msl = data["msl"].isel(time=0)
    return plots.plot_field(msl, contours=msl, width=8)


def a_column_of_a_paper(real: Path, demo: Path) -> Figure:
    """A column of a paper: steps of colour, degrees, cities, 89 mm, 300 dots per inch"""
    file = real / "era5_t2m_uk_2019_03/era5-2mt-2019-03-uk.grib"
    data = xr.open_dataset(file, engine="cfgrib", backend_kwargs={"indexpath": ""})
    return data.climlstm.plot_field(
        "t2m",
        time="2019-03-13T12",
        levels=10,
        gridlines=True,
        points={"London": (-0.1, 51.5), "Dublin": (-6.3, 53.3), "Edinburgh": (-3.2, 55.9)},
        width="89 mm",
        dpi=300,
    )


def wind_and_water(real: Path, demo: Path) -> Figure:
    """Wind over water vapour: as many arrows as there is room for, their key below the map"""
    folder = real / "era5_nw_europe_2020_01_01"
    names = ("tcw", "u10", "v10")
    files = [folder / f"ERA5_2020-01-01_{name}.nc" for name in names]
    tcw, u10, v10 = (
        xr.open_dataset(file, engine="netcdf4")[name].isel(time=12)
        for file, name in zip(files, names, strict=True)
    )
    return plots.plot_field(tcw, wind=(u10, v10), gridlines=True, width=5)


def rain_as_cells(real: Path, demo: Path) -> Figure:
    """Rain: cells as they are, since smooth shading would invent some between them"""
    file = real / "era5_nw_europe_2020_01_01/ERA5_2020-01-01_tp.nc"
    hour = xr.open_dataset(file, engine="netcdf4").isel(time=18)
    levels = [0, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5]
    return hour.climlstm.plot_field("tp", levels=levels, cmap="GnBu", width=5)


def what_is_unusual(real: Path, demo: Path) -> Figure:
    """What is unusual: a difference of kelvins keeps its zero, in a scale of both signs"""
    file = real / "eraint_europe_daily_2000_2010/t850_ei.nc"
    data = xr.open_dataset(file, engine="netcdf4")
    t850 = data[next(name for name in data if data[name].ndim == 3)].isel(time=slice(0, 1461))
    august = t850.sel(time=slice("2003-08-01", "2003-08-12")).mean("time")
    usual = t850.isel(time=t850.time.dt.month == 8).mean("time")
    anomaly = (august - usual).assign_attrs(units="K", long_name="850 hPa temperature anomaly")
    return anomaly.climlstm.plot_field(levels=12, title="August 2003: anomaly at 850 hPa", width=6)


def an_ocean_grid(real: Path, demo: Path) -> Figure:
    """The grid of an ocean model, two poles in the north: drawn as it is, nothing is regridded"""
    file = real / "cmip6_tos_curvilinear/nemo_1m_20150101-20150201_grid-T.nc"
    data = xr.open_dataset(file, engine="netcdf4")
    return data.climlstm.plot_field("tos", time=0, projection="orthographic", width=5)


def dark_slides(real: Path, demo: Path) -> Figure:
    """Slides: matplotlib's style sheets are followed; streamlines; any projection of cartopy"""
    file = real / "era5_wind_asia_2015_08/20150801-pl.grib"
    data = xr.open_dataset(file, engine="cfgrib", backend_kwargs={"indexpath": ""})
    low = data.sel(isobaricInhPa=925).isel(time=0)
    speed = np.hypot(low["u"], low["v"]).rename("ws").assign_attrs(long_name="925 hPa wind")
    with matplotlib.style.context("dark_background"):
        return plots.plot_field(
            speed, wind=(low["u"], low["v"]), wind_as="streamlines", cmap="Blues", width=7
        )


def forecast_and_truth(real: Path, demo: Path) -> Figure:
    """A forecast, the truth and the error"""
    forecast = climlstm.open_forecasts(demo / "forecasts.zarr")
    truth = forecast.climlstm.truth()
    return forecast.climlstm.plot_forecast(
        "z500", truth=truth, lead_time="48h", contours="msl", width=10
    )


def one_forecast_over_its_leads(real: Path, demo: Path) -> Figure:
    """A forecast as it goes on, in one region, with letters for the caption"""
    forecast = climlstm.open_forecasts(demo / "forecasts.zarr")
    return forecast.climlstm.plot_strip(
        "t850",
        lead_times=["1d", "2d", "3d"],
        truth=forecast.climlstm.truth(),
        region="north atlantic",
        letters=True,
    )


def mean_and_spread(real: Path, demo: Path) -> Figure:
    """An ensemble: mean as lines, spread as colours"""
    ensemble = climlstm.open_forecasts(demo / "ensemble.zarr")
    return ensemble.climlstm.plot_ensemble("z500", lead_time="3d", projection="north polar")


def single_members(real: Path, demo: Path) -> Figure:
    """An ensemble: a few contours of every member, of their mean and of the truth"""
    ensemble = climlstm.open_forecasts(demo / "ensemble.zarr")
    truth = ensemble.climlstm.truth()
    return ensemble.climlstm.plot_ensemble(
        "z500", "spaghetti", lead_time="3d", truth=truth, projection="north polar"
    )


def chance_of_a_gale(real: Path, demo: Path) -> Figure:
    """An ensemble: the chance of a threshold, in the unit of the map"""
    ensemble = climlstm.open_forecasts(demo / "ensemble.zarr")
    return ensemble.climlstm.plot_ensemble(
        "msl", "probability", below=1000, lead_time="3d", region="north atlantic"
    )


def storms_of_a_season(real: Path, demo: Path) -> Figure:
    """Tracks of storms, coloured by their pressure, a mark every two days"""
    found = pd.read_csv(real / "best_tracks/ERA5_1996_UZ.csv", parse_dates=["time"])
    found = found.assign(slp=found["slp"] / 100)
    atlantic = found["lon"].between(260, 345) & (found["lat"] > 8)
    chosen = found[atlantic & found["time"].between("1996-08-15", "1996-09-15")]
    return plots.plot_tracks(chosen, mark_every="48h", title="August and September 1996", width=7)


def skill_by_lead(real: Path, demo: Path) -> Figure:
    """Skill, beside the baselines, with intervals of 95 %"""
    scores = pd.read_csv(demo / "scores/scores.csv")
    return plots.plot_scores(scores, metric="rmse", variables=["msl", "z500", "t850"])


ALL: tuple[Callable[[Path, Path], Figure], ...] = (
    pressure_of_the_globe,
    a_column_of_a_paper,
    wind_and_water,
    rain_as_cells,
    what_is_unusual,
    an_ocean_grid,
    dark_slides,
    forecast_and_truth,
    one_forecast_over_its_leads,
    mean_and_spread,
    single_members,
    chance_of_a_gale,
    storms_of_a_season,
    skill_by_lead,
)


def code_of(draw: Callable[[Path, Path], Figure]) -> str:
    """The body of a function without its docstring, as one would write it in a notebook."""
    body = inspect.getsource(draw).split('"""', 2)[2].lstrip("\n")
    return textwrap.dedent(body).replace("return plots.", "plots.").replace("return ", "")


def write(figure: Figure, path: Path) -> None:
    """A PNG of 256 colours, which is a quarter of the size of one with all."""
    plots.save(figure, path, dpi=760 / figure.get_figwidth())
    with Image.open(path) as picture:
        small = with_few_colours(picture, figure)
    small.save(path, optimize=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help="pictures to draw; all by default")
    wanted = parser.parse_args().names or [draw.__name__ for draw in ALL]
    real, demo = Path(os.environ["CLIMLSTM_REAL_DATA"]), Path("demo")
    FOLDER.mkdir(exist_ok=True)
    parts = [INTRODUCTION]
    for draw in ALL:
        picture = FOLDER / f"{draw.__name__}.png"
        if draw.__name__ in wanted:
            write(draw(real, demo), picture)
            print(f"{picture}: {picture.stat().st_size / 1024:.0f} KiB")
        said = inspect.getdoc(draw) or ""
        parts.append(
            f"## {said}\n\n![{said}](gallery/{picture.name})\n\n```python\n{code_of(draw)}```\n"
        )
    PAGE.write_text("\n".join([*parts, CREDIT]), encoding="utf-8")


if __name__ == "__main__":
    main()
