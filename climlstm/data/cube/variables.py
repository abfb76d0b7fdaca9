"""Built-in variables: our names, units and signs for what reanalyses and models call otherwise.

Each is an entry point of `climlstm.variables`, like those of any plugin. Names, units and ERA5 long
names follow the ECMWF parameter database and WeatherBench 2; standard names, CF table 92; aliases
are the short names of CMIP6, NCEP and of files met in the wild.
"""

import xarray as xr

from climlstm.plugins import Style, Variable

TEMPERATURE = Style(units="degC", colormap="RdYlBu_r", limits=(-40, 40))
WIND = Style(colormap="RdBu_r", limits=(-20, 20))
UPPER_WIND = Style(colormap="RdBu_r", limits=(-50, 50))

# fmt: off
T2M = Variable(
    "t2m", "2 m temperature", units="K", standard_name="air_temperature",
    era5_name="2m_temperature", aliases=("2t", "tas", "T2", "air2m", "temperature_2m", "VAR_2T"),
    style=TEMPERATURE,
)
D2M = Variable(
    "d2m", "2 m dew point temperature", units="K", standard_name="dew_point_temperature",
    era5_name="2m_dewpoint_temperature", aliases=("2d", "tdps", "VAR_2D"), style=TEMPERATURE,
)
MSL = Variable(
    "msl", "Mean sea level pressure", units="Pa", standard_name="air_pressure_at_mean_sea_level",
    era5_name="mean_sea_level_pressure",
    aliases=("mslp", "psl", "slp", "prmsl", "mslet", "air_pressure_at_sea_level"),
    style=Style(units="hPa", colormap="PuOr_r", limits=(978, 1048), contour_interval=4),
)
SP = Variable(
    "sp", "Surface pressure", units="Pa", standard_name="surface_air_pressure",
    era5_name="surface_pressure", aliases=("ps", "psfc"),
    style=Style(units="hPa", colormap="viridis", limits=(500, 1040)),
)
U10 = Variable(
    "u10", "10 m eastward wind", units="m s-1", standard_name="eastward_wind",
    era5_name="10m_u_component_of_wind", aliases=("10u", "uas", "u10m", "VAR_10U"),
    component="eastward", style=WIND,
)
V10 = Variable(
    "v10", "10 m northward wind", units="m s-1", standard_name="northward_wind",
    era5_name="10m_v_component_of_wind", aliases=("10v", "vas", "v10m", "VAR_10V"),
    component="northward", style=WIND,
)
U100 = Variable(
    "u100", "100 m eastward wind", units="m s-1", standard_name="eastward_wind",
    era5_name="100m_u_component_of_wind", aliases=("100u", "u100m"), component="eastward",
    style=WIND,
)
V100 = Variable(
    "v100", "100 m northward wind", units="m s-1", standard_name="northward_wind",
    era5_name="100m_v_component_of_wind", aliases=("100v", "v100m"), component="northward",
    style=WIND,
)
WDIR10 = Variable(
    "wdir10", "10 m wind direction", units="degree", standard_name="wind_from_direction",
    aliases=("10wdir", "wd10", "wind_direction_10m"),
    style=Style(colormap="twilight", limits=(0, 360)),
)
Q2M = Variable(
    "q2m", "2 m specific humidity", units="kg kg-1", standard_name="specific_humidity",
    aliases=("2sh", "sh2", "huss", "qair", "specific_humidity_2m"),
    style=Style(units="g kg-1", colormap="YlGnBu", limits=(0, 20)),
)
SST = Variable(
    "sst", "Sea surface temperature", units="K", standard_name="sea_surface_temperature",
    era5_name="sea_surface_temperature", aliases=("tos", "analysed_sst"),
    style=Style(units="degC", colormap="RdYlBu_r", limits=(-2, 32)),
)
SKT = Variable(
    "skt", "Skin temperature", units="K", standard_name="surface_temperature",
    era5_name="skin_temperature", aliases=("ts",), style=TEMPERATURE,
)
PR = Variable(
    "pr", "Precipitation rate", units="kg m-2 s-1", standard_name="precipitation_flux",
    era5_name="mean_total_precipitation_rate", aliases=("prate", "mtpr"),
    style=Style(colormap="Blues", limits=(0, 2e-4)),
)
TP = Variable(
    "tp", "Total precipitation", units="m", standard_name="lwe_thickness_of_precipitation_amount",
    era5_name="total_precipitation", aliases=("total_precipitation_6hr",),
    style=Style(units="mm", colormap="Blues", limits=(0, 20)),
)
TCW = Variable(
    "tcw", "Total column water", units="kg m-2", era5_name="total_column_water",
    style=Style(colormap="YlGnBu", limits=(0, 60)),
)
TCWV = Variable(
    "tcwv", "Total column water vapour", units="kg m-2",
    standard_name="atmosphere_mass_content_of_water_vapor", era5_name="total_column_water_vapour",
    aliases=("prw", "pwat", "total_column_vertically_integrated_water_vapour"),
    style=Style(colormap="YlGnBu", limits=(0, 60)),
)
TCC = Variable(
    "tcc", "Total cloud cover", units="1", standard_name="cloud_area_fraction",
    era5_name="total_cloud_cover", aliases=("clt",),
    style=Style(units="%", colormap="Greys_r", limits=(0, 100)),
)

Z = Variable(
    "z", "Geopotential", units="m2 s-2", standard_name="geopotential", era5_name="geopotential",
    aliases=("zg", "hgt", "gh", "geopotential_height"), on_levels=True,
    style=Style(units="gpdm", colormap="Spectral_r", contour_interval=6),
)
T = Variable(
    "t", "Temperature", units="K", standard_name="air_temperature", era5_name="temperature",
    aliases=("ta", "air", "air_temperature"), on_levels=True, style=TEMPERATURE,
)
U = Variable(
    "u", "Eastward wind", units="m s-1", standard_name="eastward_wind",
    era5_name="u_component_of_wind", aliases=("ua", "uwnd"), on_levels=True, component="eastward",
    style=UPPER_WIND,
)
V = Variable(
    "v", "Northward wind", units="m s-1", standard_name="northward_wind",
    era5_name="v_component_of_wind", aliases=("va", "vwnd"), on_levels=True, component="northward",
    style=UPPER_WIND,
)
W = Variable(
    "w", "Vertical velocity", units="Pa s-1", standard_name="lagrangian_tendency_of_air_pressure",
    era5_name="vertical_velocity", aliases=("wap", "omega"), on_levels=True,
    style=Style(colormap="PuOr", limits=(-2, 2)),
)
Q = Variable(
    "q", "Specific humidity", units="kg kg-1", standard_name="specific_humidity",
    era5_name="specific_humidity", aliases=("hus", "shum"), on_levels=True,
    style=Style(units="g kg-1", colormap="YlGnBu", limits=(0, 20)),
)
R = Variable(
    "r", "Relative humidity", units="%", standard_name="relative_humidity",
    era5_name="relative_humidity", aliases=("hur", "rhum", "rh"), on_levels=True,
    style=Style(colormap="YlGnBu", limits=(0, 100)),
)

OROGRAPHY = Variable(
    "orography", "Height of the surface above the geoid", units="m",
    standard_name="surface_altitude", era5_name="geopotential_at_surface",
    aliases=("orog", "topo", "hsurf", "surface_geopotential", "z"), static=True,
    style=Style(colormap="terrain", limits=(0, 5000)),
)
LAND_MASK = Variable(
    "land_mask", "Fraction of land", units="1", standard_name="land_area_fraction",
    era5_name="land_sea_mask",
    aliases=("lsm", "sftlf", "land", "land_fraction", "land_binary_mask"), static=True,
    style=Style(colormap="Greens", limits=(0, 1)),
)


# fmt: on
def _wind_speed(ds: xr.Dataset) -> xr.DataArray:
    return (ds["u10"] ** 2 + ds["v10"] ** 2) ** 0.5


WS10 = Variable(
    "ws10",
    "10 m wind speed",
    units="m s-1",
    standard_name="wind_speed",
    era5_name="10m_wind_speed",
    inputs=("u10", "v10"),
    derive=_wind_speed,
    style=Style(colormap="YlOrRd", limits=(0, 25)),
)
