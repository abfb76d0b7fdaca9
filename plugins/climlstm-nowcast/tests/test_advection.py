"""Motion that is found, and rain that is carried along it."""

from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from climlstm_nowcast.advection import carry, decibel, motion
from scipy import ndimage

REAL = Path(__file__).parents[4] / "shared/data/real/radar_bom_melbourne_2018_06_16"


def blobs(size=128, seed=0):
    field = np.random.default_rng(seed).normal(size=(size, size))
    smooth = ndimage.gaussian_filter(field, 4.0, mode="wrap")
    return np.where(smooth > 0, 40 * smooth / smooth.max(), 0.0)


@pytest.mark.parametrize("shift", [(3, -2), (-7, 5), (0, 0), (11, 9)])
def test_the_motion_of_a_shifted_field_is_its_shift(shift):
    field = blobs()
    frames = np.stack([np.roll(field, (t * shift[0], t * shift[1]), (0, 1)) for t in range(3)])
    flow = motion(decibel(frames))
    inner = flow[:, 32:-32, 32:-32]
    np.testing.assert_allclose(inner.mean((1, 2)), shift, atol=0.15)
    np.testing.assert_allclose(
        inner, np.broadcast_to(np.reshape(shift, (2, 1, 1)), inner.shape), atol=0.8
    )


def test_a_field_carried_by_whole_cells_is_that_field_shifted():
    field = blobs()
    flow = np.broadcast_to(np.array([2.0, -3.0])[:, None, None], (2, *field.shape))
    carried = carry(field, flow, [0, 1, 4])
    np.testing.assert_array_equal(carried[0], field)
    np.testing.assert_allclose(carried[1][2:, :-3], field[:-2, 3:], atol=1e-9)
    np.testing.assert_allclose(carried[2][8:, :-12], field[:-8, 12:], atol=1e-9)
    assert np.isnan(carried[2][:8]).all()
    assert np.isnan(carried[2][:, -12:]).all()


def test_rotation_brings_a_field_round():
    """Sixty steps of six degrees: the blob is back where it was, and as high."""
    rows, columns = np.indices((81, 81)) - 40.0
    field = np.exp(-((rows - 15) ** 2 + columns**2) / 30)
    angle = np.deg2rad(6)
    flow = angle * np.stack([columns, -rows])
    carried = carry(field, flow, [60], outside=0.0)[0]
    assert np.unravel_index(carried.argmax(), carried.shape) == pytest.approx((55, 40), abs=1)
    np.testing.assert_allclose(carried[20:-20, 20:-20], field[20:-20, 20:-20], atol=0.05)


def test_still_and_dry_fields_do_not_move():
    dry = np.zeros((3, 64, 64))
    np.testing.assert_array_equal(motion(decibel(dry)), 0)
    assert (decibel(np.array([np.nan, 0.0, 0.05, 1.0])) == [-15, -15, -15, 0]).all()


@pytest.mark.skipif(not REAL.exists(), reason="needs the radar files of Melbourne")
@pytest.mark.slow
def test_on_real_rain_advection_is_as_good_as_that_of_pysteps():
    """CSI at 0.5 mm/h of ten starts; pysteps 1.21.5 has 0.851, 0.724, 0.543 with the same."""
    files = sorted(REAL.glob("*.nc"))
    opened = [xr.open_dataset(f, engine="radar_cf").rain_rate.values[0] for f in files]
    rain = np.stack(opened).astype("float64")
    steps = (1, 3, 9)
    counts = np.zeros((2, 3, 2))
    for start in np.linspace(2, len(rain) - 10, 10).astype(int):
        flow = motion(decibel(rain[start - 2 : start + 1]))
        for number, carried in enumerate(carry(rain[start], flow, steps)):
            known, came = np.isfinite(carried), rain[start + steps[number]] >= 0.5
            for model, field in enumerate((carried, rain[start])):
                said = field >= 0.5
                both = (said & came & known).sum()
                counts[model, number] += both, ((said | came) & known).sum()
    found = counts[..., 0] / counts[..., 1]
    assert (found[0] > np.array([0.851, 0.724, 0.543]) - 0.02).all(), found
    np.testing.assert_allclose(found[1], [0.69, 0.54, 0.48], atol=0.02)
