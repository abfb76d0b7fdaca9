"""Derivatives against spherical harmonics, whose derivatives are known, and by hand."""

import numpy as np
import pytest
import xarray as xr
from climlstm_wind.sphere import RADIUS_M, curl, divergence, gradient
from climlstm_wind.variables import (
    DIV,
    TFP,
    VO,
    WPD100,
    WS,
    WS100,
    air_density_100m,
    thermal_front_parameter,
)

import climlstm.testing
from climlstm.config import DataConfig
from climlstm.data.cube.cube import build_cube
from climlstm.errors import DataError
from climlstm.simulation.spherical import SphericalHarmonics

TRUNCATION = 6


def grid(rows, *, offset=1e-3):
    """Rows from pole to pole, the outermost so near that the harmonics' division stays defined."""
    latitude = np.linspace(90 - offset, -90 + offset, rows)
    return latitude, np.arange(2 * (rows - 1)) * 360 / (2 * (rows - 1))


def labelled(values, latitude, longitude):
    """(longitude, latitude) of the harmonics, as climlstm has it."""
    latitude = np.where(np.abs(latitude) > 89.99, np.round(latitude), latitude)
    return xr.DataArray(
        values.T,
        dims=("latitude", "longitude"),
        coords={"latitude": latitude, "longitude": longitude},
    )


def harmonics(rows, *, poles=True):
    """A smooth streamfunction on the sphere: wind, vorticity (s-1) and gradient of it."""
    if poles:
        latitude, longitude = grid(rows)
    else:
        latitude = 90 - (np.arange(rows) + 0.5) * 180 / rows
        longitude = np.arange(2 * rows) * 180 / rows
    sphere = SphericalHarmonics(
        TRUNCATION, latitude=latitude, longitude_count=longitude.size, radius=RADIUS_M
    )
    generator = np.random.default_rng(0)
    shape = sphere.kept.shape
    psi = generator.normal(size=shape) + 1j * generator.normal(size=shape)
    psi = np.where(sphere.kept, psi, 0) * 1e7
    psi[0] = psi[0].real
    vorticity = sphere.synthesise(psi * sphere.laplacian)
    east, north = sphere.gradient(psi)
    named = {
        "u": -north,
        "v": east,
        "vorticity": vorticity,
        "east": east,
        "north": north,
        "psi": sphere.synthesise(psi),
    }
    return xr.Dataset({n: labelled(v, latitude, longitude) for n, v in named.items()})


def error(found, wanted):
    """Greatest error, relative to the greatest value; and in the outermost rows alone."""
    off = np.abs(found - wanted) / np.abs(wanted).max()
    return float(off.max()), float(off.isel(latitude=[0, -1]).max())


@pytest.mark.parametrize("poles", [True, False])
def test_vorticity_and_divergence_of_harmonics_are_of_second_order_up_to_the_poles(poles):
    errors = []
    for rows in (46, 91) if poles else (45, 90):
        wind = harmonics(rows, poles=poles)
        vorticity = error(curl(wind.u, wind.v), wind.vorticity)
        turned = error(divergence(wind.v, -wind.u), wind.vorticity)
        assert vorticity == pytest.approx(turned)
        none = np.abs(divergence(wind.u, wind.v)).max() / np.abs(wind.vorticity).max()
        errors.append((*vorticity, float(none)))
    coarse, fine = np.array(errors)
    assert (fine < 0.01).all()
    assert (coarse > 3 * fine).all()


@pytest.mark.parametrize("poles", [True, False])
def test_gradient_of_harmonics_is_of_second_order_up_to_the_poles(poles):
    errors = []
    for rows in (46, 91) if poles else (45, 90):
        field = harmonics(rows, poles=poles)
        east, north = gradient(field.psi)
        errors.append((*error(east, field.east), *error(north, field.north)))
    coarse, fine = np.array(errors)
    assert (fine < 0.01).all()
    assert (coarse > 3 * fine).all()


def test_a_region_differs_from_the_globe_at_its_edge_only():
    wind = harmonics(91)
    globe = curl(wind.u, wind.v)
    picked = {"latitude": slice(20, 40), "longitude": slice(30, 60)}
    region = curl(wind.u.isel(picked), wind.v.isel(picked))
    inside = {"latitude": slice(1, -1), "longitude": slice(2, -2)}
    xr.testing.assert_allclose(region.isel(inside), globe.isel(picked).isel(inside))
    assert error(region, wind.vorticity.isel(picked))[0] < 0.03


@pytest.mark.parametrize("dim", ["latitude", "longitude"])
def test_the_order_of_rows_and_columns_does_not_matter(dim):
    wind = harmonics(19)
    turned = wind.isel({dim: slice(None, None, -1)})
    xr.testing.assert_allclose(
        curl(turned.u, turned.v).sortby(dim), curl(wind.u, wind.v).sortby(dim)
    )


def test_the_date_line_is_no_edge():
    wind = harmonics(19)
    moved = wind.roll(longitude=11, roll_coords=True)
    east = moved.assign_coords(longitude=(moved.longitude + 180) % 360 - 180)
    found = curl(east.u, east.v).values
    np.testing.assert_allclose(found, curl(wind.u, wind.v).roll(longitude=11).values, atol=1e-12)


def test_solid_rotation_has_vorticity_2_omega_sin_latitude():
    omega = 1e-5
    latitude, longitude = np.linspace(90, -90, 181), np.arange(0, 360, 1.0)
    u = omega * RADIUS_M * np.cos(np.deg2rad(latitude))[:, None] * np.ones(360)
    u = xr.DataArray(
        u, dims=("latitude", "longitude"), coords={"latitude": latitude, "longitude": longitude}
    )
    expected = 2 * omega * np.sin(np.deg2rad(latitude))
    np.testing.assert_allclose(curl(u, 0 * u)[:, 7], expected, atol=3e-4 * omega)
    np.testing.assert_allclose(divergence(u, 0 * u), 0, atol=1e-12)


def test_a_grid_without_derivatives_is_refused():
    wind = harmonics(19)
    with pytest.raises(DataError, match="3 rows and 3 columns"):
        curl(wind.u[:2], wind.v[:2])
    with pytest.raises(DataError, match="no east"):
        curl(wind.u[:5, :9], wind.v[:5, :9])


def test_power_of_10_m_s_in_standard_air():
    ones = xr.DataArray(np.ones((1, 1, 1)), dims=("time", "latitude", "longitude"))
    inputs = {"u100": 6 * ones, "v100": 8 * ones, "sp": 101325 * ones, "t2m": 288.15 * ones}
    power = WPD100.derive(xr.Dataset(inputs)).item()
    assert air_density_100m(101325.0, 288.15) == pytest.approx(
        1.2111, rel=1e-3
    )  # 1.225 at sea level
    assert power == pytest.approx(0.5 * 1.2111 * 1000, rel=1e-3)


def test_front_parameter_is_greatest_on_the_warm_side_of_the_front():
    latitude, longitude = np.arange(60, 29.9, -0.25), np.arange(0, 20, 0.5)
    front = 280 - 5 * np.tanh((latitude - 45) / 3)[:, None] * np.ones(longitude.size)
    field = xr.DataArray(
        front, dims=("latitude", "longitude"), coords={"latitude": latitude, "longitude": longitude}
    )
    parameter = thermal_front_parameter(xr.Dataset({"t": field})).isel(longitude=20)
    # |dT/dφ| = A sech²(x), whose slope is steepest where tanh² x = 1/3: x = 0.658, times 3 degrees
    assert float(parameter.idxmax("latitude")) == pytest.approx(45 - 0.658 * 3, abs=0.5)
    per_metre = 5 / (np.deg2rad(3) * RADIUS_M)
    greatest = 2 * per_metre * (2 / 3) * np.sqrt(1 / 3) / (np.deg2rad(3) * RADIUS_M)
    assert float(parameter.max()) == pytest.approx(greatest, rel=0.03)


def test_a_uniform_field_has_no_front():
    latitude, longitude = np.arange(60, 50, -1.0), np.arange(0, 10, 1.0)
    field = xr.DataArray(
        np.full((10, 10), 280.0, dtype="float32"),
        dims=("latitude", "longitude"),
        coords={"latitude": latitude, "longitude": longitude},
    )
    assert not thermal_front_parameter(xr.Dataset({"t": field})).any()


def test_a_cube_is_made_of_them(tmp_path):
    wind = (
        harmonics(19)[["u", "v"]]
        .astype("float32")
        .expand_dims(
            time=np.datetime64("2020-01-01", "ns") + np.arange(4) * np.timedelta64(6, "h"),
            level=[500.0, 850.0],
        )
    )
    names = {"u": "u_component_of_wind", "v": "v_component_of_wind"}
    source = wind.rename(names).transpose("time", "level", "latitude", "longitude")
    for name in names.values():
        source[name].attrs["units"] = "m s-1"
    source["level"].attrs["units"] = "hPa"
    day = {"train": ["2020-01-01", "2020-01-01"]}
    periods = day | {"valid": ["2020-01-02", "2020-01-02"], "test": ["2020-01-03", "2020-01-03"]}
    data = DataConfig(
        catalog="none.yaml", source="none", step="6h", state=("vo850", "ws500"), periods=periods
    )
    cube = build_cube(source, data).compute()
    expected = curl(wind.u.sel(level=850), wind.v.sel(level=850))
    np.testing.assert_allclose(cube["vo850"], expected, rtol=1e-5)
    assert cube["vo850"].attrs["units"] == "s-1"
    speed = np.hypot(wind.u, wind.v).sel(level=500)
    np.testing.assert_allclose(cube["ws500"], speed, rtol=1e-5)


class TestWindSpeed(climlstm.testing.VariableTests):
    variable = WS

    def known(self):
        ones = xr.DataArray(np.ones((1, 2, 2)), dims=("time", "latitude", "longitude"))
        return xr.Dataset({"u": 3 * ones, "v": -4 * ones}), 5 * ones


class TestWindSpeed100m(climlstm.testing.VariableTests):
    variable = WS100


class TestVorticity(climlstm.testing.VariableTests):
    variable = VO
    tolerance = 0.01

    def known(self):
        wind = harmonics(91).expand_dims("time")
        return wind[["u", "v"]], wind["vorticity"]


class TestDivergence(climlstm.testing.VariableTests):
    variable = DIV
    tolerance = 0.01

    def known(self):
        wind = harmonics(91).expand_dims("time")
        return xr.Dataset({"u": wind["v"], "v": -wind["u"]}), wind["vorticity"]


class TestWindPower(climlstm.testing.VariableTests):
    variable = WPD100


class TestFronts(climlstm.testing.VariableTests):
    variable = TFP
