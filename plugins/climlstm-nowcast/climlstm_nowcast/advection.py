"""Motion of rain, and rain carried along by it: the forecast that a nowcast has to beat.

Motion is found by an optical flow of Lucas and Kanade (1981) for every cell: in a window around it,
the displacement that explains best, by least squares, how the field changed from frame to frame;
from coarse to fine (Bouguet 2001), so that displacements longer than a rain cell are found, too.
Where the window holds nothing that moves, the motion of the surroundings is taken. Rain is carried
backwards along the trajectories (semi-Lagrangian; Germann and Zawadzki 2002, Mon. Weather Rev. 130,
2859-2873), and never mixed twice, however many steps.
"""

import itertools
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

Real = NDArray[np.float64]

DRY_DB = -15.0
"""Rain rate in dB where there is none; the threshold below which none is told apart is -10 dB."""

FINEST = 1
"""Halvings of the grid on which motion is still found; it is smooth over many cells."""

THRESHOLD = 0.1
"""mm/h: less counts as dry."""


def decibel(rate: Real) -> Real:
    """10 log10 of a rain rate in mm/h; -15 where it is below 0.1 or missing."""
    wet = np.nan_to_num(rate) >= THRESHOLD
    return np.where(wet, 10 * np.log10(np.where(wet, rate, 1.0)), DRY_DB)


def motion(frames: Real, *, window: float = 16.0, levels: int = 5, rounds: int = 4) -> Real:
    """Displacement (2, H, W) from frame to frame, in rows and columns, by optical flow.

    frames: (T, H, W) in order of time, two or more, evenly spaced; of rain in decibel (`decibel`),
        whose edges and cores weigh alike.
    window: standard deviation of the Gaussian window, in cells.
    levels: halvings of the grid at most; rounds: improvements at each level.
    """
    smooth = [ndimage.gaussian_filter(frame, 1.0) for frame in np.asarray(frames, "float64")]
    sizes = frames.shape[-2:]
    while levels > 1 and min(sizes) / 2 ** (levels - 1) < 16:
        levels -= 1
    flow = np.zeros((2, 1, 1))
    for level in reversed(range(FINEST, levels)):
        factor = 2**level
        coarse = [_halved(frame, level) for frame in smooth]
        flow = _enlarged(flow, coarse[0].shape)
        flow = flow * 2  # in cells of this level
        for _ in range(rounds):
            flow = _improved(coarse, flow, max(window / factor, 4.0))
    return _enlarged(flow, sizes) * 2**FINEST


def carry(field: Real, flow: Real, steps: Sequence[int], *, outside: float | None = np.nan) -> Real:
    """The field (H, W) after each number of steps (L, H, W), carried along a steady motion.

    outside: value of what comes in over the rim; None: as the rim is.
    """
    rows, columns = np.indices(field.shape, dtype="float64")
    back = np.zeros_like(flow)
    carried = {}
    for step in range(max(steps, default=0) + 1):
        if step in steps:
            carried[step] = _sampled(field, rows + back[0], columns + back[1], outside)
        back = _one_step_further(back, flow, rows, columns)
    return np.stack([carried[step] for step in steps])


def _improved(frames: Sequence[Real], flow: Real, window: float) -> Real:
    """The flow plus the displacement that explains what it leaves over, weighted over windows."""
    rows, columns = np.indices(flow.shape[1:], dtype="float64")
    products = np.zeros((5, *flow.shape[1:]))
    for before, after in itertools.pairwise(frames):
        # Both are moved half-way, so that the gradient belongs to the place between them.
        first = _sampled(before, rows - flow[0] / 2, columns - flow[1] / 2)
        second = _sampled(after, rows + flow[0] / 2, columns + flow[1] / 2)
        down, along = np.gradient((first + second) / 2)
        change = second - first
        for number, product in enumerate(
            (down * down, down * along, along * along, down * change, along * change)
        ):
            products[number] += product
    a, b, c, d, e = (ndimage.gaussian_filter(p, window, mode="nearest") for p in products)
    # The motion of the whole, where a window says little: a prior of the strength of its mean.
    prior = 0.1 * (a + c).mean() + 1e-9
    a, c = a + prior, c + prior
    determinant = a * c - b * b
    update = np.stack([-(c * d - b * e), -(a * e - b * d)]) / determinant
    far = np.clip(flow + np.clip(update, -2, 2), -max(flow.shape[1:]), max(flow.shape[1:]))
    strength = ndimage.gaussian_filter(products[0] + products[2], window, mode="nearest")
    return _spread(far, strength, window)


def _spread(flow: Real, strength: Real, window: float) -> Real:
    """The flow, smoothed with the strength of what it was found from, filled in from around."""
    weight = strength + 1e-3 * strength.mean() + 1e-12
    total = ndimage.gaussian_filter(weight, window, mode="nearest")
    return np.stack(
        [ndimage.gaussian_filter(part * weight, window, mode="nearest") / total for part in flow]
    )


def _one_step_further(back: Real, flow: Real, rows: Real, columns: Real) -> Real:
    """Displacement to where the air was one step earlier, by the motion at half the way."""
    further = np.zeros_like(flow)
    for _ in range(3):
        middle = [r + b + f / 2 for r, b, f in zip((rows, columns), back, further, strict=True)]
        further = -np.stack([_sampled(part, *middle) for part in flow])
    return back + further


def _sampled(field: Real, rows: Real, columns: Real, outside: float | None = None) -> Real:
    """Values at fractional rows and columns (bilinear); beyond the rim its own, or `outside`."""
    mode, value = ("nearest", 0.0) if outside is None else ("constant", outside)
    where = np.stack([rows, columns])
    return np.asarray(ndimage.map_coordinates(field, where, order=1, mode=mode, cval=value))


def _halved(field: Real, times: int) -> Real:
    for _ in range(times):
        field = ndimage.gaussian_filter(field, 1.0)[::2, ::2]
    return field


def _enlarged(flow: Real, shape: tuple[int, ...]) -> Real:
    zoom = [1, shape[0] / flow.shape[1], shape[1] / flow.shape[2]]
    return np.asarray(ndimage.zoom(flow, zoom, order=1, mode="nearest", grid_mode=True))
