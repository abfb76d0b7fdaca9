"""Every variable of every real file by the accessor: a right map, or a refusal in one sentence."""

import numpy as np
import pytest
import xarray as xr
from scipy import ndimage

pytest.importorskip("cartopy")

import cartopy.crs as ccrs

import climlstm  # noqa: F401 (the accessor)
from climlstm import plots
from climlstm.errors import DataError
from climlstm.plots.fields import as_field, placed_field
from climlstm.plots.image import FieldImage
from climlstm.plots.styles import look_of
from tests.test_plots import colours_at

SMALL = {"width": 2.0, "dpi": 60, "coastlines": "none"}
HORIZONTAL = {"lat", "lon", "latitude", "longitude", "rlat", "rlon", "x", "y", "i", "j", "nlat",
              "nlon", "grid_latitude", "grid_longitude", "dim0", "dim1", "south_north",
              "west_east", "south_north_stag", "west_east_stag"}  # fmt: skip
FEWEST_MAPS = {
    "era5": 75, "eraint": 3, "cordex": 8, "cmip6_tos": 7, "projected": 3, "radar": 40,
    "cmip6_calendars": 13, "wrf": 100, "meteonet": 8, "best_tracks": 0, "other": 15,
}  # fmt: skip
"""Maps that each group of files must give, so that a refusal of everything fails."""


def files(folder, group):
    known = [name for name in FEWEST_MAPS if name != "other"]
    found = sorted([*folder.rglob("*.nc"), *folder.rglob("*.grib")])
    for path in found:
        parts = path.relative_to(folder).parts
        name = next(
            (known_name for known_name in known if parts[0].startswith(known_name)), "other"
        )
        if name == group:
            yield path


def opened(path):
    if path.suffix == ".nc":
        times = xr.coders.CFDatetimeCoder(use_cftime=None)
        return xr.open_dataset(path, engine="netcdf4", decode_times=times)
    pytest.importorskip("cfgrib")
    return xr.open_dataset(path, engine="cfgrib", backend_kwargs={"indexpath": ""})


def check_places(figure, field, look):
    """What is painted at the middle of a cell is the value of that cell or of its neighbours."""
    [ax] = [one for one in figure.axes if hasattr(one, "projection")]
    [image] = [one for one in ax.images if isinstance(one, FieldImage)]
    painted = np.ma.filled(np.asarray(image.get_array(), "float64"), np.nan)
    left, right, bottom, top = image.get_extent()
    grid = plots.canvas.grid_of(field)
    values = look.values(field)
    reach = 2 + int(max(np.array(field.shape) / painted.shape))  # cells that one pixel may show
    rows, columns = (
        np.unique(np.linspace(reach, n - 1 - reach, 7).astype(int)) for n in field.shape
    )
    for i, j in [(i, j) for i in rows for j in columns if min(field.shape) > 2 * reach]:
        around = values[i - reach : i + reach + 1, j - reach : j + reach + 1]
        off_place = (
            abs(grid.latitude[i, j]) > (80 if grid.kind == "latlon" else 60) or grid.area[i, j] == 0
        )
        if off_place or not np.isfinite(around).all():
            continue
        x, y = ax.projection.transform_point(
            grid.longitude[i, j], grid.latitude[i, j], ccrs.PlateCarree()
        )
        if not (left < x < right and bottom < y < top):
            continue
        shape = painted.shape
        pixel = painted[int((y - bottom) / (top - bottom) * shape[0]),
                        int((x - left) / (right - left) * shape[1])]  # fmt: skip
        slack = 0.3 * np.ptp(around) + 1e-5 * np.abs(values[np.isfinite(values)]).max()
        assert around.min() - slack <= pixel <= around.max() + slack, (field.name, i, j)


def check_colours(figure, field, look):
    """The scale is one on which the field can be read, in a unit that fits its numbers."""
    [ax] = [one for one in figure.axes if hasattr(one, "projection")]
    [image] = [one for one in ax.images if isinstance(one, FieldImage)]
    values = look.values(field)
    finite = values[np.isfinite(values)]
    if look.units == "°C" and finite.size:
        assert -130 < finite.min() <= finite.max() < 100  # no temperature has lost or kept 273.15
    if not finite.size:
        assert any("no data" in text.get_text() for text in ax.texts)
    elif finite.min() == finite.max():
        assert look.quantity.categories or any("everywhere" in t.get_text() for t in ax.texts)
    elif not look.quantity.categories:
        low, high = image.norm.vmin, image.norm.vmax
        assert ((finite < low) | (finite > high)).mean() < 0.06
        assert np.ptp(np.clip(finite, low, high)) > 0.1 * (high - low)


@pytest.mark.slow
@pytest.mark.parametrize("group", FEWEST_MAPS)
def test_every_variable_is_drawn_right_or_refused(real_data, group):
    drawn = refused = 0
    for path in files(real_data, group):
        with opened(path) as data:
            for name, variable in data.data_vars.items():
                first = {d: 0 for d in variable.dims if d not in HORIZONTAL | {"time"}}
                one = data.isel(first)
                try:
                    figure = one.climlstm.plot_field(name, **SMALL)
                except DataError as error:
                    said = str(error)
                    assert str(name) in said
                    assert len(said) < 600, said
                    assert "\n" not in said, said
                    assert "Error" not in said, said
                    refused += 1
                    continue
                figure.draw_without_rendering()
                at_last = {"time": -1} if "time" in one[name].dims else {}
                field = as_field(placed_field(one, name).isel(at_last))
                check_places(figure, field, look_of(field))
                check_colours(figure, field, look_of(field))
                drawn += 1
    assert drawn >= FEWEST_MAPS[group]
    assert drawn + refused > 0


def place(data, name, choose, **options):
    """Colour at the place of the largest or smallest value, and the colour that it should have.

    Of the cells off the edge and the poles that have neighbours on all sides.
    """
    at_first = {"time": 0} if "time" in data[name].dims else {}
    field = as_field(placed_field(data, name).isel(at_first))
    grid = plots.canvas.grid_of(field)
    values = field.values.astype("float64")
    whole = ndimage.binary_erosion(np.isfinite(values), np.ones((3, 3)), iterations=3)
    values[~whole | (np.abs(grid.latitude) > 75)] = np.nan
    flat = np.nanargmax(values) if choose == "max" else np.nanargmin(values)
    at = np.unravel_index(flat, values.shape)
    figure = plots.plot_field(field, width=10, coastlines="none", shading="cells", **options)
    figure.draw_without_rendering()
    found, *_, inside = colours_at(figure.axes[0], grid.longitude[at], grid.latitude[at])
    [image] = [one for one in figure.axes[0].images if isinstance(one, FieldImage)]
    wanted = 255 * np.array(image.cmap(image.norm(look_of(field).values(field)[at]))[:3])
    return found, wanted, inside, figure.axes[0]


GRIDS = [
    ("cordex_rotated_pole/rotated_pole.nc", "air_pressure_at_sea_level", "RotatedPole"),
    ("cordex_rotated_pole/tas_rotated_grid_EUR11.nc", "tas", "RotatedPole"),
    ("projected_grids/tmean_1910_1910.nc", "tmean", "OwnProjection"),
    ("projected_grids/test_lcc.nc", "tas", "OwnProjection"),
    ("cmip6_tos_curvilinear/nemo_1m_20150101-20150201_grid-T.nc", "tos", "Robinson"),
    ("cmip6_tos_curvilinear/tos_Omon_CESM2-FV2_historical_r1i1p1f1_gn_200001.nc", "tos",
     "Robinson"),
    ("radar_bom_melbourne_2018_06_16/2_20180616_120000.prcp-cscn.nc", "precipitation",
     "OwnProjection"),
    ("wrf_cropped/mercator_sample.nc", "U10", None),
]  # fmt: skip


@pytest.mark.parametrize(("path", "name", "projection"), GRIDS, ids=lambda v: str(v).split("/")[-1])
@pytest.mark.parametrize("asked", [None, "platecarree"])
def test_extremes_of_real_grids_are_at_their_places(real_data, path, name, projection, asked):
    with opened(real_data / path) as data:
        first = {d: 0 for d in data[name].dims if d not in HORIZONTAL | {"time"}}
        data = data.isel(first)
        for choose in ("max", "min") if name != "precipitation" else ("max",):
            found, wanted, inside, ax = place(data, name, choose, projection=asked)
            assert inside.all()
            assert np.abs(found[0] - wanted).max() <= 12
            if asked is None and projection is not None:
                assert type(ax.projection).__name__ == projection


def test_rows_that_rise_northward_are_drawn_the_right_way_up(real_data):
    """Great Britain on its National Grid: Scotland is cooler than Cornwall, and above it."""
    with opened(real_data / "projected_grids" / "tmean_1910_1910.nc") as data:
        figure = data.climlstm.plot_field("tmean", coastlines="none", cmap="gray", width=4)
    ax = figure.axes[0]
    found, *_, inside = colours_at(ax, np.array([-4.0, -4.9]), np.array([57.0, 50.4]))
    assert inside.all()
    assert found[0].sum() < found[1].sum()
    up = [ax.projection.transform_point(-4.0, lat, ccrs.PlateCarree())[1] for lat in (57.0, 50.4)]
    assert up[0] > up[1]
