"""Where the coefficients of tanh in the fused gates come from, and how exact they are.

tanh(x) is x P(x²) / Q(x²) for |x| up to LIMIT, beyond which it is 1 to the last digits of float32.
P and Q of degree 4 begin with 1, so that small x stay exact; the other coefficients make the
largest relative error as small as it can be. They are found by the Remez exchange for rational
functions (Fraser & Hart 1962, doi:10.1145/368273.368578), where the error at given nodes is an
eigenvalue (Filip et al. 2018, doi:10.1137/17M1132409, section 4).

    python benchmarks/tanh.py
"""

import numpy as np
import scipy.linalg
from numpy.typing import NDArray

LIMIT, DEGREE = 8, 4

Values = NDArray[np.float64]


def coefficients() -> tuple[Values, Values, float]:
    """P and Q, lowest power first, and the largest relative error in exact arithmetic."""
    x = np.linspace(0, LIMIT, 20001)[1:]
    scaled, exact = (x / LIMIT) ** 2, np.tanh(x) / x
    nodes = np.searchsorted(x, LIMIT * np.sin(np.pi / 2 * np.arange(1, 10) / 9)) - 1
    for _ in range(30):
        p, q = _through(scaled[nodes], exact[nodes])
        error = np.polyval(p, scaled) / np.polyval(q, scaled) / exact - 1
        ends = np.flatnonzero(np.diff(np.sign(error))) + 1
        spans = np.split(np.arange(len(x)), ends)
        nodes = np.array([span[np.abs(error[span]).argmax()] for span in spans])
        largest = np.abs(error[nodes])
        if largest.max() < 1.0001 * largest.min():
            break
    powers = LIMIT ** -(2.0 * np.arange(DEGREE + 1))
    return p[::-1] * powers, q[::-1] * powers, float(largest.max())


def _through(s: Values, exact: Values) -> tuple[Values, Values]:
    """P and Q, highest power first, whose relative error at the nodes is one number by turns up
    and down: P - exact Q = ± error exact Q, with one coefficient for both constant terms."""
    powers = s[:, None] ** np.arange(1, DEGREE + 1)
    turns = (-1.0) ** np.arange(len(s))
    of_q = exact[:, None] * powers
    left = np.column_stack([1 - exact, powers, -of_q])
    right = turns[:, None] * np.column_stack([exact, np.zeros_like(powers), of_q])
    errors, vectors = scipy.linalg.eig(left, right)
    found = []
    for error, vector in zip(errors, vectors.T, strict=True):
        with np.errstate(all="ignore"):
            p, q = np.split((vector / vector[0])[1:], 2)
        if np.isfinite(error) and abs(error.imag) < 1e-12 and (q.real > 0).all():
            found.append((abs(error), p.real, q.real))
    _, p, q = min(found, key=lambda each: each[0])
    return np.append(p[::-1], 1.0), np.append(q[::-1], 1.0)


def main() -> None:
    p, q, error = coefficients()
    for name, values in (("P", p), ("Q", q)):
        print(name, *(f"{value:.9g}" for value in values))
    print(f"relative error in exact arithmetic: {error:.1e}")


if __name__ == "__main__":
    main()
