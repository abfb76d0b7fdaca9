"""Spherical harmonics: spectral coefficients to grid values and back, derivatives, Laplacian.

A real field is f(λ, μ) = Σ_m Σ_n f[m, n] P[m, n](μ) exp(i m λ) with μ = sin φ, triangularly
truncated, |m| <= n <= N, and f[-m, n] the complex conjugate of f[m, n]. The Legendre functions are
scaled such that the mean of |P exp(i m λ)|² over the sphere is 1; f[0, 0] is the global mean.

Coefficients are complex arrays (m, n, …) with zeros below n = m, grid values (longitude,
latitude, …): any further dimensions (level, member) trail, so that each zonal wavenumber is one
matrix product over all of them.
"""

from typing import Any

import numpy as np
import scipy.fft
from numpy.typing import NDArray

Real = NDArray[np.floating[Any]]
Complex = NDArray[np.complex128]


class SphericalHarmonics:
    """Transforms between triangularly truncated coefficients and one latitude-longitude grid.

    The grid may have any latitudes but the poles; only `gaussian` ones can be analysed.
    """

    def __init__(
        self,
        truncation: int,
        *,
        latitude: Real,
        longitude_count: int,
        radius: float,
        weights: Real | None = None,
    ):
        """latitude: degrees; radius: m; weights: of the quadrature in μ, summing to 1."""
        self.truncation = truncation
        self.latitude = latitude
        self.longitude = np.arange(longitude_count) * (360 / longitude_count)
        mu = np.sin(np.deg2rad(latitude))
        values, slopes = legendre(truncation, mu)
        self._synthesis = values.transpose(0, 2, 1).copy()
        self._slope = (slopes / (radius * np.sqrt(1 - mu**2))).transpose(0, 2, 1).copy()
        self._weights = weights
        self._analysis = None if weights is None else values * weights
        cosine = np.sqrt(1 - mu**2)[:, None]
        self._parallel = radius * cosine  # m: distance from the Earth's axis
        m = np.arange(truncation + 1)
        n = np.arange(truncation + 1)
        self.im = 1j * m[:, None]
        """(m, 1): the longitudinal derivative is a product with it."""
        self.laplacian = -n * (n + 1) / radius**2
        """(n,): eigenvalues of the Laplacian, m-2."""
        self.kept = m[:, None] <= n
        """(m, n): whether a coefficient belongs to the truncation."""

    @classmethod
    def gaussian(cls, truncation: int, *, radius: float) -> "SphericalHarmonics":
        """The smallest Gaussian grid on which products of two fields are free of aliasing.

        It has at least 3 N + 1 longitudes (Orszag 1970, J. Atmos. Sci. 27, 890): 64 x 32 for T21.
        """
        longitude_count = scipy.fft.next_fast_len(3 * truncation + 1, real=True)
        longitude_count += longitude_count % 2
        mu, weights = np.polynomial.legendre.leggauss(longitude_count // 2)
        latitude = np.rad2deg(np.arcsin(mu[::-1]))
        return cls(
            truncation,
            latitude=latitude,
            longitude_count=longitude_count,
            radius=radius,
            weights=weights[::-1] / 2,
        )

    def synthesise(self, coefficients: Complex) -> Real:
        """Grid values of a field."""
        return self._to_longitudes(_multiply(self._synthesis, coefficients))

    def gradient(self, coefficients: Complex) -> tuple[Real, Real]:
        """Eastward and northward derivative of a field, per m."""
        im = self.im.reshape(-1, *[1] * (coefficients.ndim - 1))
        east = self._to_longitudes(_multiply(self._synthesis, im * coefficients))
        north = self._to_longitudes(_multiply(self._slope, coefficients))
        return east / self._parallel.reshape(-1, *[1] * (coefficients.ndim - 2)), north

    def rotational_wind(self, streamfunction: Complex) -> tuple[Real, Real]:
        """Eastward and northward wind of a streamfunction (m2 s-1), m s-1."""
        east, north = self.gradient(streamfunction)
        return -north, east

    def analyse(self, values: Real) -> Complex:
        """Coefficients of grid values, which must lie on a Gaussian grid."""
        assert self._analysis is not None, "only a Gaussian grid can be analysed"
        return _multiply(self._analysis, self._waves(values))

    def curl(self, east: Real, north: Real) -> Complex:
        """Vorticity of a vector field on a Gaussian grid, per m; integrated by parts."""
        assert self._weights is not None, "only a Gaussian grid can be analysed"
        parallel = self._parallel.reshape(-1, *[1] * (east.ndim - 2))
        along = self.analyse(north / parallel)
        weighted = east * self._weights.reshape(-1, *[1] * (east.ndim - 2))
        across = _multiply(self._slope.transpose(0, 2, 1), self._waves(weighted))
        return self.im.reshape(-1, *[1] * (east.ndim - 1)) * along + across

    def invert_laplacian(self, coefficients: Complex) -> Complex:
        """The field (m, n, …) with global mean zero that has this Laplacian."""
        laplacian = self.laplacian.copy()
        laplacian[0] = np.inf
        return coefficients / laplacian.reshape(-1, *[1] * (coefficients.ndim - 2))

    def _waves(self, values: Real) -> Complex:
        return scipy.fft.rfft(values, axis=0, norm="forward")[: self.truncation + 1]

    def _to_longitudes(self, waves: Complex) -> Real:
        return scipy.fft.irfft(waves, n=self.longitude.size, axis=0, norm="forward")


def legendre(truncation: int, mu: Real) -> tuple[Real, Real]:
    """Normalised associated Legendre functions P and (1 - μ²) dP/dμ, each (m, n, latitude).

    By recurrence over n for fixed m (Abramowitz and Stegun 1964, 8.5.3 and 8.5.4), in the
    normalisation of this module. Zero for n < m.
    """
    size = truncation + 2  # the derivative needs one degree more
    m, n = np.meshgrid(np.arange(size), np.arange(size + 1), indexing="ij")
    epsilon = np.sqrt(np.maximum(n**2 - m**2, 0) / (4 * n**2 - 1))
    values = np.zeros((size, size, mu.size))
    values[0, 0] = 1
    for order in range(1, size):
        ratio = np.sqrt((2 * order + 1) / (2 * order) * (1 - mu**2))
        values[order, order] = ratio * values[order - 1, order - 1]
    for order in range(size):
        for degree in range(order, size - 1):
            below = values[order, degree - 1] if degree > order else 0
            values[order, degree + 1] = (
                mu * values[order, degree] - epsilon[order, degree] * below
            ) / epsilon[order, degree + 1]
    kept = slice(truncation + 1)
    below = np.zeros_like(values)
    below[:, 1:] = values[:, :-1]
    above = np.zeros_like(values)
    above[:, :-1] = values[:, 1:]
    slopes = ((n + 1) * epsilon)[:, :-1, None] * below - (n[:, :-1] * epsilon[:, 1:])[
        :, :, None
    ] * above
    return values[kept, kept], slopes[kept, kept]


def _multiply(matrices: Real, waves: Complex) -> Complex:
    """Real matrices (m, i, j) times complex waves (m, j, …), as one real product for each m."""
    order, rows, columns = matrices.shape
    flat = np.ascontiguousarray(waves).reshape(order, columns, -1).view(np.float64)
    return (matrices @ flat).view(np.complex128).reshape(order, rows, *waves.shape[2:])
