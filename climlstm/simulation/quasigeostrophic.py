"""A three-level quasi-geostrophic model of the atmosphere on the sphere, at T21.

After Marshall and Molteni (1993, J. Atmos. Sci. 50, 1792; MM below): potential vorticity at 200,
500 and 800 hPa is carried by the rotational wind, relaxed towards a sheared jet that is
baroclinically unstable, and damped by Ekman friction at the ground and by scale-selective
diffusion. Where MM tune a constant source of potential vorticity to analyses, there is none here,
but a stated jet that follows the sun, mountains, and land that is rougher than the sea and colder
in winter.

Fields are spectral coefficients (m, n, level, member) as in `spherical`, levels downward.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from climlstm.simulation.spherical import Complex, Real, SphericalHarmonics

RADIUS = 6.371e6
"""Radius of the Earth, m."""
ROTATION = 7.292e-5
"""Angular velocity of the Earth, s-1."""
GAS_CONSTANT = 287.05
"""Gas constant of dry air, J kg-1 K-1."""
DAY = 86400.0
"""Length of a day, s."""
TRUNCATION = 21
LEVELS = (200.0, 500.0, 800.0)
"""Pressure of the three levels, hPa."""
STEP = np.timedelta64(90, "m")
"""Time step. The Runge-Kutta method is stable while step x frequency < 2.8, which for the shortest
wave, 21 around the Earth, means winds below 150 m s-1."""
SOLSTICE = np.datetime64("2000-12-21T13:37", "m")
"""Time of a winter solstice of the northern hemisphere, UTC."""
YEAR_DAYS = 365.2422
"""Length of the tropical year."""


Times = NDArray[np.datetime64]


@dataclass(frozen=True)
class Parameters:
    """Rates and shapes that set the climate. Rates of zero and flat ground leave pure advection."""

    rossby_radius_km: tuple[float, float] = (700.0, 450.0)
    """Rossby radius of the layers 200-500 and 500-800 hPa (MM)."""
    relaxation_per_day: float = 1 / 12
    """Relaxation of layer thickness towards equilibrium (MM: 1 / 25)."""
    drag_per_day: float = 2 / 3
    """Damping of vorticity over the sea (MM: 1 / 3)."""
    drag_land: float = 2.0
    """Drag over land as a multiple of that over the sea (MM: 1.5, over mountains 2)."""
    diffusion_per_day: float = 1 / 2
    """Damping at the truncation by the diffusion of eighth order (MM: 1 / 2)."""
    jet: tuple[float, float] = (45.0, 26.0)
    """Wind at 200 and 500 hPa relative to 800 hPa in the axis of the equilibrium jet, m s-1."""
    jet_latitude: float = 38.0
    """Axis of the equilibrium jet, degrees north and south."""
    jet_width: float = 15.0
    """Distance from the axis at which the jet has fallen to 1/e, degrees."""
    jet_season: tuple[float, float] = (0.22, 0.12)
    """Relative strengthening of the equilibrium jet at the winter solstice, north and south."""
    land_cooling: tuple[float, float] = (6.0, 20.0)
    """Difference by which land is colder than the sea in equilibrium: its annual mean, and what is
    added at the winter solstice and subtracted at the other, K x |sin φ|."""
    trade_wind: float = 5.0
    """Easterly to which friction pulls the lowest level at 12 degrees north and south, m s-1. It
    stands for the momentum that the Hadley circulation brings down, which this flow lacks."""
    mountains: float = 1.0
    """Height of the mountains as a multiple of `orography`."""
    scale_height: float = 9000.0
    """Scale height of the mountains' effect, m (MM)."""


class QuasiGeostrophic:
    """The model for one set of parameters: its operators, tendency and time step."""

    def __init__(self, parameters: Parameters):
        self.parameters = parameters
        self.harmonics = SphericalHarmonics.gaussian(TRUNCATION, radius=RADIUS)
        upper, lower = (1 / (1000 * radius) ** 2 for radius in parameters.rossby_radius_km)
        self._stretching = np.array(
            [[-upper, upper, 0], [upper, -upper - lower, lower], [0, lower, -lower]]
        )
        self._operator = (
            self.harmonics.laplacian[:, None, None] * np.eye(len(LEVELS)) + self._stretching
        )
        self._inverse = np.zeros_like(self._operator)
        self._inverse[1:] = np.linalg.inv(self._operator[1:])  # global means do not matter
        degree = np.arange(TRUNCATION + 1)
        self._diffusion = (parameters.diffusion_per_day / DAY) * (
            degree * (degree + 1) / (TRUNCATION * (TRUNCATION + 1))
        ) ** 4
        self._set_ground()
        self._set_equilibrium()

    def _set_ground(self) -> None:
        harmonics, parameters = self.harmonics, self.parameters
        coriolis = np.broadcast_to(
            2 * ROTATION * np.sin(np.deg2rad(harmonics.latitude)),
            (harmonics.longitude.size, harmonics.latitude.size),
        )
        height = parameters.mountains * orography(harmonics.latitude, harmonics.longitude).T
        mountains = harmonics.analyse(coriolis * height / parameters.scale_height)
        self._ground = np.zeros((*mountains.shape, len(LEVELS), 1), dtype=complex)
        self._ground += harmonics.analyse(coriolis)[:, :, None, None]
        self._ground[:, :, -1, 0] += mountains
        """Potential vorticity at rest: of the Earth's rotation and the mountains."""
        land = harmonics.analyse(land_fraction(harmonics.latitude, harmonics.longitude).T)
        self._land = land * np.exp(harmonics.laplacian * (RADIUS / 12) ** 2)
        """Share of land, smoothed over some 500 km lest coasts ring."""
        roughness = (parameters.drag_land - 1) * self._land
        roughness[0, 0] += 1
        drag = (parameters.drag_per_day / DAY) * roughness[:, :, None]
        self._drag = harmonics.synthesise(drag)
        self._drag_gradient = harmonics.gradient(drag)

    def _set_equilibrium(self) -> None:
        """Streamfunction towards which thickness relaxes: annual mean, and northern winter."""
        parameters, latitude = self.parameters, self.harmonics.latitude
        shear = np.array([*parameters.jet, 0.0])
        mean, winter = [], []
        for sign, season in zip((1, -1), parameters.jet_season, strict=True):
            distance = (sign * latitude - parameters.jet_latitude) / parameters.jet_width
            profile = np.exp(-(distance**2)) * (sign * latitude > 0)
            jet = self._streamfunction_of(profile)[:, :, None] * shear
            cold_mean, cold_winter = parameters.land_cooling
            land = self._cold_land(sign)
            mean.append(jet + cold_mean * land)
            winter.append(sign * (season * jet + cold_winter * land))
        self._equilibrium = sum(mean)[..., None], sum(winter)[..., None]
        trades = np.exp(-(((np.abs(latitude) - 12) / 10) ** 2)) * -parameters.trade_wind
        vorticity = self.harmonics.laplacian * self._streamfunction_of(trades)
        self._trades = (parameters.drag_per_day / DAY) * vorticity[:, :, None]

    def _cold_land(self, sign: int) -> Complex:
        """Streamfunction (m, n, level) of one hemisphere, where land is 1 K x |sin φ| colder.

        Thickness by the hypsometric equation, and its geostrophic streamfunction with the Coriolis
        parameter of 45 degrees; cold with |sin φ|, so that nothing of it reaches the equator.
        """
        latitude = np.deg2rad(self.harmonics.latitude)
        land = self.harmonics.synthesise(self._land)
        cold = -(land - land.mean(axis=0)) * np.abs(np.sin(latitude))
        hemisphere = sign * (sign * latitude > 0) * np.abs(np.sin(latitude))
        scale = GAS_CONSTANT / (2 * ROTATION * np.sin(np.pi / 4))
        lower = self.harmonics.analyse(cold * hemisphere * scale * np.log(LEVELS[2] / LEVELS[1]))
        upper = self.harmonics.analyse(cold * hemisphere * scale * np.log(LEVELS[1] / LEVELS[0]))
        return np.stack([lower + upper / 2, lower, np.zeros_like(lower)], axis=-1)

    def _streamfunction_of(self, wind: Real) -> Complex:
        """Streamfunction (m, n) of a zonal wind (latitude,)."""
        zonal = np.broadcast_to(wind, (self.harmonics.longitude.size, wind.size))
        return self.harmonics.invert_laplacian(self.harmonics.curl(zonal, np.zeros_like(zonal)))

    def potential_vorticity(self, streamfunction: Complex) -> Complex:
        """Deviation of potential vorticity from that at rest, s-1 (MM, Eq. 2)."""
        return np.einsum("nkl,mnlb->mnkb", self._operator, streamfunction)

    def streamfunction(self, vorticity: Complex) -> Complex:
        """Inverse of `potential_vorticity`, with global mean zero, m2 s-1."""
        return np.einsum("nkl,mnlb->mnkb", self._inverse, vorticity)

    def initial(self, seed: int, winter: Real) -> Complex:
        """Potential vorticity in equilibrium, but for eddies of random phase (1 member)."""
        generator = np.random.default_rng(seed)
        shape = (TRUNCATION + 1, TRUNCATION + 1, len(LEVELS), 1)
        noise = generator.normal(size=shape) + 1j * generator.normal(size=shape)
        noise[0] = noise[0].real
        degree = np.arange(TRUNCATION + 1)[:, None, None]
        eddies = 5e6 / (1 + degree**2) * noise * self.harmonics.kept[:, :, None, None]
        eddies[0, 0] = 0
        return self.potential_vorticity(self.equilibrium(winter) + eddies)

    def equilibrium(self, winter: Real) -> Complex:
        """Streamfunction of radiative equilibrium (its barotropic part means nothing).

        winter: (member,), 1 at the winter solstice of the northern hemisphere, -1 at the other.
        """
        mean, amplitude = self._equilibrium
        return mean + amplitude * winter

    def tendency(self, vorticity: Complex, equilibrium: Complex) -> Complex:
        """Rate of change of potential vorticity, s-2 (MM, Eq. 1 and Appendix)."""
        streamfunction = self.streamfunction(vorticity)
        fields = np.concatenate([streamfunction, vorticity + self._ground], axis=2)
        east, north = self.harmonics.gradient(fields)
        (psi_x, q_x), (psi_y, q_y) = np.split(east, 2, axis=2), np.split(north, 2, axis=2)
        source = psi_y * q_x - psi_x * q_y
        source[:, :, -1] -= self._friction(streamfunction, psi_x, psi_y)
        rate = self.harmonics.analyse(source)
        rate -= np.einsum(
            "kl,mnlb->mnkb",
            self._stretching * (self.parameters.relaxation_per_day / DAY),
            streamfunction - equilibrium,
        )
        rate -= self._diffusion[:, None, None] * vorticity
        rate[:, :, -1] += self._trades
        rate[0, 0] = 0
        return rate

    def _friction(self, streamfunction: Complex, east: Real, north: Real) -> Real:
        """Loss of vorticity at the lowest level, ∇·(k ∇ψ), to a drag k that varies in space.

        east, north: gradient of the streamfunction.
        """
        vorticity = self.harmonics.laplacian[:, None] * streamfunction[:, :, -1]
        drag_east, drag_north = self._drag_gradient
        return (
            self._drag * self.harmonics.synthesise(vorticity)
            + drag_east * east[:, :, -1]
            + drag_north * north[:, :, -1]
        )

    def step(self, vorticity: Complex, winter: Real) -> Complex:
        """Potential vorticity one `STEP` later, by the classical Runge-Kutta method.

        It needs no earlier step, so a run continues bit for bit from any state that was kept.
        """
        equilibrium = self.equilibrium(winter)
        step = STEP / np.timedelta64(1, "s")
        first = self.tendency(vorticity, equilibrium)
        second = self.tendency(vorticity + step / 2 * first, equilibrium)
        third = self.tendency(vorticity + step / 2 * second, equilibrium)
        fourth = self.tendency(vorticity + step * third, equilibrium)
        return vorticity + step / 6 * (first + 2 * (second + third) + fourth)

    def advance(self, vorticity: Complex, time: Times, duration: np.timedelta64) -> Complex:
        """Potential vorticity `duration` after `time` (member,), a whole number of steps.

        The season stands still during a step.
        """
        state = vorticity
        for step in range(duration // STEP):
            state = self.step(state, northern_winter(time + step * STEP))
        return state


def northern_winter(time: Times) -> Real:
    """1 at the winter solstice of the northern hemisphere, -1 at the summer solstice.

    Minus the sine of the sun's declination over that of the obliquity, for a circular orbit.
    """
    days = (time - SOLSTICE) / np.timedelta64(1, "D")
    return np.cos(2 * np.pi * days / YEAR_DAYS)


def land_fraction(latitude: Real, longitude: Real) -> Real:
    """Share of land (latitude, longitude) in cells of 5.625 degrees, interpolated in latitude.

    latitude: degrees; longitude: the 64 of the map, 0 to 354.375 degrees.
    """
    rows = [[0 if cell == "." else int(cell) for cell in row] for row in LAND.split()]
    land = np.array(rows) / 9
    count = len(land)
    centres = 90 - 180 / count * (np.arange(count) + 0.5)
    columns = [np.interp(latitude, centres[::-1], column[::-1]) for column in land.T]
    assert len(columns) == longitude.size
    return np.stack(columns, axis=-1)


def orography(latitude: Real, longitude: Real) -> Real:
    """Height of the idealised mountains (latitude, longitude), m: Gaussians, see `MOUNTAINS`."""
    height = np.zeros((latitude.size, longitude.size))
    for centre, east, top, half_height, half_width in MOUNTAINS:
        across = (latitude[:, None] - centre) / half_height
        along = (longitude - east + 180) % 360 - 180
        along = along * np.cos(np.deg2rad(centre)) / half_width
        height += top * np.exp(-(across**2) - along**2)
    return height


MOUNTAINS = (
    (35.0, 90.0, 4000.0, 9.0, 18.0),  # Tibet
    (45.0, 250.0, 2200.0, 14.0, 12.0),  # Rocky Mountains
    (72.0, 320.0, 2500.0, 9.0, 9.0),  # Greenland
    (-25.0, 290.0, 2500.0, 22.0, 7.0),  # Andes
    (-90.0, 0.0, 2800.0, 16.0, 180.0),  # Antarctica
)
"""Latitude and longitude of the centre (degrees), height (m), and the distances to the north and
to the east at which it has fallen to 1/e (degrees of great circle). As T21 would see them."""

LAND = """
    ................................................................
    ..122............31............................245765555678752..
    ...21.....221..1457631...21...............2332334641448999998...
    ...255311233568999999997688653343..365433466773658563.1899972...
    .15869878999989999999999999999995416999999999999641571.7941.24..
    .375489999999999999999999644353....37424699999981.3952..2......2
    54768999999999999999999984..51.....1.....59999999759993.......15
    79999988979999999999999994................6999999999724........1
    734585459399999999999986231...............59999999971.........17
    55312359969999999999971333................299999998............6
    998575699899999999999911...................27998671...........29
    9999996896656999999996......................2792.12..........199
    99999994997..69618952.1......................1845.221........499
    9999999763...27..188.12........................255...........499
    9999999984....4...22.13..........................238871.......79
    .18999996........26.5511..........................499994.......1
    ..699996..........4253214511......................89999963......
    ..299995...........1211..5411.....................599999992.....
    ..29999612............25631.......................18999996......
    ..29998.62...........389997.........................999993......
    ...8995.3...........29999995.......................199982.......
    ...497...............9868996.......................29994........
    ....1................1...672...2...................4993.........
    ..........................2...23...................591..........
    ..............................2....................85...........
    ...................................................43...........
    ................................................................
    .........12.....1.21211221..........................11..........
    3445456689997479999999999997643...............1....263........23
    9999999999999999999999999999971.....124677777689988542..1.134799
    9999999999999999999999999999941....1.489999999999986553665689999
    9999999999999999999999999999999999988889999999999999999999999999
"""
"""Share of land in ninths ('.' is none): 32 rows from north to south, 64 columns from Greenwich
eastward. From the 1:110m land polygons of Natural Earth (public domain)."""
