"""Storms on projected and curvilinear grids: where they are on latitudes, or were put."""

from dataclasses import replace

import matplotlib
import numpy as np
import pyproj
import pytest
import xarray as xr
from climlstm_storms.centres import Detector
from climlstm_storms.evaluator import Storms
from climlstm_storms.mesh import Mesh
from climlstm_storms.scores import grid_snap_floor_km
from climlstm_storms.search import detect
from climlstm_storms.selection import RECIPES, Selection
from climlstm_storms.tracker import track
from matplotlib.backends.backend_agg import FigureCanvasAgg

from benchmarks.lows import Low, moving_lows, true_tracks
from climlstm.data.sources.catalog import open_path
from climlstm.errors import DataError
from climlstm.grid import Curvilinear, LatLon, Plane, Projected, great_circle_km
from climlstm.grid.mappings import from_text
from climlstm.plots import plot_tracks

KM = 60.0
TIMES = np.datetime64("2020-01-01T00", "ns") + np.arange(6) * np.timedelta64(6, "h")
STORM = [Low(38, -102, 75, 40, depth_pa=2500)]
LAMBERT = "+proj=lcc +lat_0=42 +lon_0=-95 +lat_1=33 +lat_2=45 +R=6370000"
POLAR = "+proj=stere +lat_0=90 +lat_ts=70 +lon_0=-45 +R=6370000"


def projected(text, rows=60, columns=90):
    y, x = (KM * 1e3 * (np.arange(n) - (n - 1) / 2) for n in (rows, columns))
    return Projected(y[::-1], x, from_text(text).to_wkt())


def on(grid, lows, *, times=TIMES):
    """Fields of lows on a grid, as a forecast store has them."""
    fields = moving_lows(lows, grid.latitude, grid.longitude, times)
    return fields.assign_coords(grid.coordinates())


def apart(one, other):
    """Distances of two tables of one storm at their common times, km."""
    both = one.merge(other, on="time", suffixes=("", "_other"))
    assert len(both) == TIMES.size
    return great_circle_km(both.lat, both.lon, both.lat_other, both.lon_other)


def test_a_storm_on_a_lambert_grid_is_that_on_latitudes():
    """Within a tenth of a cell of the truth, and of the same storm on half a degree."""
    grid = projected(LAMBERT)
    native = track(on(grid, STORM), RECIPES["any"])
    latitude, longitude = np.arange(55, 24, -0.5), np.arange(-125, -65, 0.5)
    regular = track(moving_lows(STORM, latitude, longitude, TIMES), RECIPES["any"])
    assert native["track_id"].nunique() == regular["track_id"].nunique() == 1
    truth = true_tracks(STORM, TIMES)
    assert apart(native, truth).max() < 0.1 * KM
    assert apart(native, regular).max() < 0.2 * KM
    np.testing.assert_allclose(native["slp"], regular["slp"], atol=0.2)
    np.testing.assert_allclose(native["depth"], regular["depth"], atol=1.5)  # its rim is cells
    np.testing.assert_allclose(native["wind"], regular["wind"], rtol=0.1)  # cells within 2°


@pytest.mark.parametrize("rows", [1, -1])
def test_a_track_is_painted_where_the_storm_is_on_a_lambert_map(rows):
    """PROJ says where, the picture has the track's colour there, and not 300 km beside it."""
    fields = on(projected(LAMBERT), STORM).isel(y=slice(None, None, rows))
    tracks = track(fields, RECIPES["any"])
    field = fields["u10"].isel(time=0)
    figure = plot_tracks(tracks, field=field, intensity="wind", intensity_limits=(0, 1))
    assert not [text for text in figure.axes[0].texts if text.get_text() == "nan"]  # of no lead
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    painted = np.asarray(canvas.buffer_rgba())[::-1, :, :3].astype(int)
    darkest = np.multiply(matplotlib.colormaps["plasma_r"](1.0)[:3], 255)
    truth = true_tracks(STORM, TIMES)
    places = np.transpose(pyproj.Proj(LAMBERT)(truth["lon"], truth["lat"]))
    for beside, there in ((0, True), (3e5, False), (-3e5, False)):
        columns, lines = (
            figure.axes[0].transData.transform(places + np.array([0, beside])).T.astype(int)
        )
        found = np.abs(painted[lines, columns] - darkest).max(axis=1) < 8
        np.testing.assert_array_equal(found, there)


def test_a_storm_over_the_pole_of_a_polar_grid():
    lows = [Low(80, 60, 0, 55, depth_pa=2500)]
    found = track(on(projected(POLAR), lows), RECIPES["any"])
    assert apart(found, true_tracks(lows, TIMES)).max() < 0.1 * KM
    assert found["lat"].max() > 88


def test_a_grid_that_lost_its_projection_has_the_same_storms():
    grid = projected(LAMBERT)
    fields = on(grid, STORM)
    lost = fields.drop_vars(["x", "y", "crs"]).rename(y="j", x="i", latitude="lat", longitude="lon")
    assert Mesh(Curvilinear.of(grid.latitude, grid.longitude)).spacing_deg < 0.7
    columns = ["time", "lat", "lon", "slp", "depth", "wind"]
    one, other = (track(each, RECIPES["any"])[columns] for each in (fields, lost))
    np.testing.assert_allclose(one.iloc[:, 1:], other.iloc[:, 1:], rtol=1e-9)


def noise(shape, seed):
    """Pressure with many minima, on a globe or a part of it."""
    from scipy import ndimage

    rough = np.random.default_rng(seed).normal(size=shape)
    smooth = ndimage.gaussian_filter(rough, 1.5, mode=("nearest", "wrap"))
    return 1e5 + 1500 * smooth / smooth.std()


@pytest.mark.parametrize(
    ("latitude", "longitude"),
    [(np.arange(86.25, -90, -7.5), np.arange(0, 360, 7.5)), (np.arange(70, 8, -3.0),
     np.arange(-30, 41, 3.0))], ids=["globe across the poles", "region"],
)  # fmt: skip
@pytest.mark.parametrize("closed_edges", [False, True])
def test_latitudes_given_for_each_cell_have_the_nodes_of_latitudes(
    latitude, longitude, closed_edges
):
    """The general mesh beside that of meridians, which is compared with TempestExtremes' rules."""
    field = noise((latitude.size, longitude.size), seed=4)
    coords = {"latitude": latitude, "longitude": longitude}
    plain = xr.Dataset(
        {"msl": (("time", *coords), field[None], {"units": "Pa"})}, coords | {"time": TIMES[:1]}
    )
    cells = xr.broadcast(plain.latitude, plain.longitude)
    curved = plain.drop_vars(["latitude", "longitude"]).rename(latitude="j", longitude="i")
    curved = curved.assign_coords(
        lat=(("j", "i"), cells[0].values, {"standard_name": "latitude"}),
        lon=(("j", "i"), cells[1].values, {"standard_name": "longitude"}),
    )
    for adapt in (False, True):
        detector = Detector(
            closed_edges=closed_edges, adapt=adapt, contour_deg=9.0, contour_pa=100.0
        )
        one, other = (
            detect(each, detector).sort_values(["j", "i"]).reset_index(drop=True)
            for each in (plain, curved)
        )
        assert len(one) > 5
        assert one[["i", "j"]].to_numpy().tolist() == other[["i", "j"]].to_numpy().tolist()
        np.testing.assert_allclose(one["depth"], other["depth"])
        east = (one["lon"] - other["lon"] + 180) % 360 - 180
        np.testing.assert_allclose(east, 0, atol=1e-6)
        np.testing.assert_allclose(one[["lat", "slp"]], other[["lat", "slp"]], atol=1e-6)


def test_rows_from_the_south_and_km_change_nothing():
    grid = projected(LAMBERT)
    ours = on(grid, STORM)
    mapping = {k: v for k, v in grid.crs.to_cf().items() if k != "crs_wkt"}
    theirs = ours.drop_vars(["latitude", "longitude", "crs"]).isel(y=slice(None, None, -1))
    theirs = theirs.assign_coords(y=theirs.y / 1e3, x=theirs.x / 1e3).assign(proj=((), 0, mapping))
    for name in ("x", "y"):
        theirs[name].attrs = {"units": "km", "standard_name": f"projection_{name}_coordinate"}
    one, other = (detect(each, Detector()) for each in (ours, theirs))
    np.testing.assert_allclose(one[["lat", "lon"]], other[["lat", "lon"]], atol=1e-6)
    assert (one["j"] + other["j"] == grid.shape[0] - 1).all()
    assert float(theirs.msl[0, other["j"][0], other["i"][0]]) == float(ours.msl[0].min())


def test_forecasts_on_a_native_grid_are_scored():
    """A storm that is 90 km too far east is off by 90 km; a perfect one by the cells at most."""
    grid, evaluator = projected(LAMBERT), Storms()
    late = [Low(38, -102 + 90 / (111.2 * np.cos(np.deg2rad(38))), 75, 40, depth_pa=2500)]
    leads = (TIMES[1:] - TIMES[0]).astype("m8[ns]")
    truth, forecast = (
        on(grid, lows).isel(time=slice(1, None)).rename(time="lead_time").assign_coords(
            lead_time=leads, init_time=TIMES[0])
        for lows in (STORM, late)
    )  # fmt: skip
    table = evaluator.summarise(evaluator.score(forecast, truth))
    values = table.groupby("metric")["value"].mean()
    assert values["position_error"] == pytest.approx(90, abs=3)
    assert values["pod"] == 1
    assert values["grid_snap_floor"] == pytest.approx(0.3826 * KM, rel=0.05)
    assert grid_snap_floor_km(table["value"] * 0, 1.0, 1.0)[0] == pytest.approx(42.5, abs=0.1)


def test_a_plane_without_geography_has_no_storms():
    grid = Plane.of_size(10, 12)
    fields = xr.Dataset(
        {"msl": (grid.dims, np.full(grid.shape, 1e5), {"units": "Pa"})}, grid.coordinates()
    )
    with pytest.raises(DataError, match="no size in km"):
        detect(fields, Detector())
    assert isinstance(grid, LatLon)


def test_katrina_in_a_nest_of_wrf_that_moves(real_data):
    """28 August 2005 on a Mercator nest that moves with the storm, cropped at its centre.

    So the edge has to close the contour. Best track: HURDAT2 of the National Hurricane Center.
    """
    fields = open_path(str(real_data / "wrf_cropped" / "mercator_sample.nc"))
    detector = Detector(contour_deg=3.0, merge_deg=3.0, closed_edges=True)
    recipe = replace(RECIPES["any"], detector=detector, selection=Selection())
    found = track(fields, recipe, names={"msl": "PSFC"})
    assert len(found) == 4
    assert found["track_id"].nunique() == 1
    np.testing.assert_allclose(found["slp"], [942.7, 939.2, 939.4, 938.5], atol=0.5)
    best = {"2005-08-28T12": (25.7, -87.7), "2005-08-28T18": (26.3, -88.6)}
    for time, place in best.items():
        [[lat, lon]] = found.loc[found["time"] == time, ["lat", "lon"]].to_numpy()
        assert great_circle_km(lat, lon, *place) < 30
    assert found["wind"].between(30, 60).all()
    plain = replace(detector, closed_edges=False)  # an edge closes nothing
    assert detect(fields, plain, names={"msl": "PSFC"})["lat"].isna().all()
