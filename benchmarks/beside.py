"""The maps of the gallery beside the same ones by earthkit-plots: time, and the two pictures.

    CLIMLSTM_REAL_DATA=... python benchmarks/beside.py FOLDER [NAME ...] [--demo DEMO] [--json FILE]

Needs earthkit-plots, and what `make pictures` needs. FOLDER gets one PNG for each map, ours on the
left. Seconds of CPU from opening the file to a PNG, the second time (coasts are in memory then).
`skill_by_lead`, which is no map, is left out. earthkit-plots has no polar views of its own and
draws the geopotential of a forecast as any number; it is given the projection, colours and levels
that its guide would have one write.
"""

import argparse
import importlib.util
import json
import os
import sys
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import earthkit.plots as ekp
import matplotlib
import numpy as np
import pandas as pd
import xarray as xr
from maps import OURS, lend_coasts, seconds, side_by_side
from matplotlib.figure import Figure

import climlstm
from climlstm.plots.output import image_of

import cartopy.crs as ccrs  # isort: skip

DOTS = 100


def gallery() -> Any:
    """docs/pictures.py, which is in no package."""
    path = Path(__file__).parents[1] / "docs" / "pictures.py"
    spec = importlib.util.spec_from_file_location("pictures", path)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def finish(chart: Any, *, borders: bool = True) -> Figure:
    """Coasts, borders, grid lines, legend and title, as its guide ends each example."""
    chart.coastlines()
    if borders:
        chart.borders()
    chart.gridlines()
    chart.legend()
    chart.title()
    return getattr(chart, "figure", chart).fig


def pressure_of_the_globe(real: Path, demo: Path) -> Figure:
    data = xr.open_dataset(real / "ecmwf_msl_global_2022_08/mslp.nc", engine="netcdf4")
    msl = data["msl"].isel(time=0)
    chart = ekp.Map(crs=ccrs.Robinson(), figsize=(8, 5))
    chart.quickplot(msl, units="hPa")
    chart.contour(msl, units="hPa", levels=range(940, 1060, 4), colors="black", linewidths=0.4)
    return finish(chart, borders=False)


def a_column_of_a_paper(real: Path, demo: Path) -> Figure:
    file = real / "era5_t2m_uk_2019_03/era5-2mt-2019-03-uk.grib"
    data = xr.open_dataset(file, engine="cfgrib", backend_kwargs={"indexpath": ""})
    t2m = data["t2m"].sel(time="2019-03-13T12")
    chart = ekp.Map(domain=[-10, 2, 50, 58], figsize=(3.5, 4))
    chart.quickplot(t2m, units="celsius")
    return finish(chart)


def wind_and_water(real: Path, demo: Path) -> Figure:
    folder = real / "era5_nw_europe_2020_01_01"
    names = ("tcw", "u10", "v10")
    data = xr.merge([
        xr.open_dataset(folder / f"ERA5_2020-01-01_{name}.nc", engine="netcdf4").isel(time=12)
        for name in names
    ])  # fmt: skip
    west, east = float(data.longitude.min()), float(data.longitude.max())
    south, north = float(data.latitude.min()), float(data.latitude.max())
    chart = ekp.Map(domain=[west, east, south, north], figsize=(5, 7.5))
    chart.quickplot(data["tcw"])
    chart.quiver(data, u="u10", v="v10", x="longitude", y="latitude")
    return finish(chart)


def rain_as_cells(real: Path, demo: Path) -> Figure:
    file = real / "era5_nw_europe_2020_01_01/ERA5_2020-01-01_tp.nc"
    hour = xr.open_dataset(file, engine="netcdf4").isel(time=18)
    chart = ekp.Map(domain=[-12, 12, 46, 62], figsize=(5, 5))
    chart.quickplot(hour["tp"], units="mm")
    return finish(chart)


def what_is_unusual(real: Path, demo: Path) -> Figure:
    file = real / "eraint_europe_daily_2000_2010/t850_ei.nc"
    data = xr.open_dataset(file, engine="netcdf4")
    t850 = data[next(name for name in data if data[name].ndim == 3)].isel(time=slice(0, 1461))
    august = t850.sel(time=slice("2003-08-01", "2003-08-12")).mean("time")
    usual = t850.isel(time=t850.time.dt.month == 8).mean("time")
    anomaly = (august - usual).assign_attrs(units="K", long_name="850 hPa temperature anomaly")
    chart = ekp.Map(figsize=(6, 5))
    chart.quickplot(anomaly)
    return finish(chart)


def an_ocean_grid(real: Path, demo: Path) -> Figure:
    file = real / "cmip6_tos_curvilinear/nemo_1m_20150101-20150201_grid-T.nc"
    data = xr.open_dataset(file, engine="netcdf4")
    chart = ekp.Map(crs=ccrs.Orthographic(0, 45), figsize=(5, 5))
    chart.pcolormesh(data["tos"].isel({data["tos"].dims[0]: 0}), x="nav_lon", y="nav_lat")
    return finish(chart, borders=False)


def dark_slides(real: Path, demo: Path) -> Figure:
    file = real / "era5_wind_asia_2015_08/20150801-pl.grib"
    data = xr.open_dataset(file, engine="cfgrib", backend_kwargs={"indexpath": ""})
    low = data.sel(isobaricInhPa=925).isel(time=0)
    speed = np.hypot(low["u"], low["v"]).rename("ws").assign_attrs(long_name="925 hPa wind")
    with matplotlib.style.context("dark_background"):
        chart = ekp.Map(figsize=(7, 5))
        chart.contourf(speed, cmap="Blues")
        chart.streamplot(low, u="u", v="v", x="longitude", y="latitude")
        return finish(chart)


def one(demo: Path, name: str, variable: str, lead: str) -> xr.DataArray:
    forecast = climlstm.open_forecasts(demo / name)
    return forecast[variable].isel(init_time=0).sel(lead_time=pd.Timedelta(lead))


def forecast_and_truth(real: Path, demo: Path) -> Figure:
    z500 = one(demo, "forecasts.zarr", "z500", "48h") / 98.0665
    msl = one(demo, "forecasts.zarr", "msl", "48h")
    cube = climlstm.open_forecasts(demo / "forecasts.zarr").climlstm.truth()
    true = cube["z500"].sel(time=z500.init_time.values + z500.lead_time.values) / 98.0665
    figure = ekp.Figure(rows=1, columns=3, size=(10, 3))
    for field in (z500, true, z500 - true):
        chart = figure.add_map(crs=ccrs.Robinson())
        named = field.rename("z500").assign_attrs(units="dam", long_name="500 hPa height")
        levels = range(480, 600, 8) if float(field.mean()) > 100 else range(-24, 25, 4)
        chart.contourf(named, levels=levels, cmap="viridis" if levels[0] > 0 else "RdBu_r")
        chart.contour(msl, units="hPa", levels=range(940, 1060, 8), colors="black", linewidths=0.4)
        chart.legend()
    figure.coastlines()
    figure.gridlines()
    figure.title("500 hPa height")
    return figure.fig


def one_forecast_over_its_leads(real: Path, demo: Path) -> Figure:
    figure = ekp.Figure(rows=1, columns=3, size=(10, 3))
    for lead in ("1d", "2d", "3d"):
        field = one(demo, "forecasts.zarr", "t850", lead)
        figure.add_map(domain=[-80, 20, 20, 75]).quickplot(field, units="celsius")
    return finish(figure)


def mean_and_spread(real: Path, demo: Path) -> Figure:
    members = one(demo, "ensemble.zarr", "z500", "3d").load() / 98.0665
    chart = ekp.Map(domain=[-180, 180, 20, 90], crs=ccrs.NorthPolarStereo(), figsize=(6, 6))
    spread = members.std("realization", ddof=1)
    chart.contourf(spread.assign_attrs(units="dam", long_name="spread"), cmap="YlOrRd")
    mean = members.mean("realization").assign_attrs(units="dam", long_name="mean")
    chart.contour(mean, levels=range(480, 600, 8), colors="black", linewidths=0.6, labels=True)
    return finish(chart, borders=False)


def single_members(real: Path, demo: Path) -> Figure:
    members = one(demo, "ensemble.zarr", "z500", "3d").load() / 98.0665
    named = members.assign_attrs(units="dam", long_name="500 hPa height")
    chart = ekp.Map(domain=[-180, 180, 20, 90], crs=ccrs.NorthPolarStereo(), figsize=(6, 6))
    for level, colour in ((516, "purple"), (540, "teal"), (564, "green")):
        each = [named.isel(realization=n) for n in range(named.sizes["realization"])]
        for member in each:
            chart.contour(member, levels=[level], colors=colour, linewidths=0.5)
    return finish(chart, borders=False)


def chance_of_a_gale(real: Path, demo: Path) -> Figure:
    members = one(demo, "ensemble.zarr", "msl", "3d").load()
    share = 100 * (members < 100000).mean("realization")
    chart = ekp.Map(domain=[-80, 20, 20, 75], figsize=(7, 5))
    named = share.assign_attrs(units="%", long_name="chance of msl below 1000 hPa")
    chart.contourf(named, levels=range(0, 101, 10), cmap="GnBu")
    return finish(chart)


def storms_of_a_season(real: Path, demo: Path) -> Figure:
    found = pd.read_csv(real / "best_tracks/ERA5_1996_UZ.csv", parse_dates=["time"])
    found = found.assign(slp=found["slp"] / 100)
    atlantic = found["lon"].between(260, 345) & (found["lat"] > 8)
    chosen = found[atlantic & found["time"].between("1996-08-15", "1996-09-15")]
    chart = ekp.Map(domain=[-110, -10, 0, 65], figsize=(7, 5))
    for _, storm in chosen.groupby("track_id"):
        x, y = storm["lon"].to_numpy() - 360, storm["lat"].to_numpy()
        chart.line(x=x, y=y, color="grey")
    x, y = chosen["lon"].to_numpy() - 360, chosen["lat"].to_numpy()
    chart.scatter(x=x, y=y, z=chosen["slp"].to_numpy(), cmap="plasma", s=8)
    return finish(chart)


PEERS: dict[str, Callable[[Path, Path], Figure]] = {
    draw.__name__: draw
    for draw in (
        pressure_of_the_globe, a_column_of_a_paper, wind_and_water, rain_as_cells, what_is_unusual,
        an_ocean_grid, dark_slides, forecast_and_truth, one_forecast_over_its_leads,
        mean_and_spread, single_members, chance_of_a_gale, storms_of_a_season,
    )
}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("names", nargs="*", metavar="NAME")
    parser.add_argument("--demo", type=Path, default=Path("demo"))
    parser.add_argument("--json", type=Path, metavar="FILE")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    real = Path(os.environ["CLIMLSTM_REAL_DATA"])
    options.folder.mkdir(exist_ok=True)
    rows: list[dict[str, object]] = []
    ours = gallery()
    with TemporaryDirectory() as folder:
        lend_coasts(Path(folder))
        for name in options.names or PEERS:
            taken, figures = {}, []
            for subject, draw in ((OURS, getattr(ours, name)), ("earthkit-plots", PEERS[name])):
                with matplotlib.rc_context():
                    if subject == OURS:  # earthkit-plots changes matplotlib's settings
                        matplotlib.rcdefaults()
                    seconds(partial(draw, real, options.demo), 1)
                    taken[subject], figure = seconds(partial(draw, real, options.demo), 1)
                figure.set_dpi(DOTS)
                figures.append(figure)
            side_by_side([image_of(figure) for figure in figures], options.folder / f"{name}.png")
            ratio = round(taken["earthkit-plots"] / taken[OURS], 2)
            both = ((OURS, 1.0), ("earthkit-plots", ratio))
            rows += [{"case": name, "subject": subject, "value": round(taken[subject], 3),
                      "unit": "s", "against": OURS, "ratio": times}
                     for subject, times in both]  # fmt: skip
            print(f"{name:30}{taken[OURS]:7.2f}{taken['earthkit-plots']:7.2f}  × {ratio:g}")
    if options.json:
        options.json.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
