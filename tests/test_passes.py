"""What is done to every value: the compiled passes and NumPy's give the same."""

import subprocess

import numpy as np
import pytest

from climlstm.compiled import load_c
from climlstm.data.store import passes

SHAPES = [(3, 4, 5), (2, 1, 16), (5, 7, 64), (1, 3, 33), (30, 2, 241)]


@pytest.fixture
def by_numpy(monkeypatch):
    """Runs a function without the compiled library."""

    def run(function, *args, **options):
        with monkeypatch.context() as patched:
            patched.setattr(passes, "_library", lambda: None)
            return function(*args, **options)

    return run


def fields(shape: tuple[int, int, int]) -> np.ndarray:
    return (280 + 12 * np.random.default_rng(0).standard_normal(shape)).astype("float32")


CUTS = {
    "whole": np.s_[:, :, :],
    "rows turned": np.s_[:, ::-1, :],
    "a region": np.s_[:, :-1, 1:],
    "every other step": np.s_[::2, :, :],
    "every other column": np.s_[:, :, ::2],
}


@pytest.mark.parametrize("cut", CUTS.values(), ids=CUTS)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("hides", [False, True])
def test_normalised_values_are_numpys_bit_for_bit(by_numpy, shape, cut, hides):
    values = fields((shape[0], shape[1] + 1, shape[2] + 1))[cut]
    hidden = np.random.default_rng(1).random(values.shape[1:]) < 0.3 if hides else None
    if hidden is not None:
        values = np.where(hidden, np.float32(np.nan), values)
    scale = {"mean": np.float32(279.3), "std": np.float32(11.7), "hidden": hidden}
    blocks = np.full((2, len(values), 3, *values.shape[1:]), np.nan, "float32")
    assert passes.normalise(values, blocks[0, :, 1], **scale)
    assert by_numpy(passes.normalise, values, blocks[1, :, 1], **scale)
    np.testing.assert_array_equal(*blocks)
    assert np.isnan(blocks[:, :, [0, 2]]).all()


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("shape", SHAPES)
def test_one_value_that_is_not_finite_is_found_wherever_it_is(shape, bad):
    scale = {"mean": np.float32(0), "std": np.float32(1), "hidden": None}
    for place in np.random.default_rng(2).integers(0, np.prod(shape), 20):
        values = fields(shape)
        values.ravel()[place] = bad
        assert not passes.normalise(values, np.empty(shape, "float32"), **scale)
        assert not np.isfinite(passes.sums(values, np.float32(280))).all()


@pytest.mark.parametrize("cut", CUTS.values(), ids=CUTS)
@pytest.mark.parametrize("shape", SHAPES)
def test_sums_are_those_of_float64(by_numpy, shape, cut):
    values = fields((shape[0], shape[1] + 1, shape[2] + 1))[cut]
    wide = values.astype("float64")
    deviations, changes = wide - 275, np.diff(wide, axis=0)
    expected = np.stack([v.sum(axis=(0, 2)) for a in (deviations, changes) for v in (a, a**2)])
    for found in (passes.sums(values, 275), by_numpy(passes.sums, values, 275)):
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-2)


def test_missing_compiler_is_said_aloud_and_hinders_nothing(monkeypatch, caplog):
    monkeypatch.setenv("CC", "no-such-compiler")
    passes._library.cache_clear()
    try:
        out = np.empty((1, 1, 2), "float32")
        values = np.array([[[3.0, 5.0]]], "float32")
        assert passes.normalise(values, out, mean=1, std=2, hidden=None)
        assert out.ravel().tolist() == [1.0, 2.0]
        assert "passes.c could not be compiled with 'no-such-compiler'" in caplog.text
        assert "reading a cube takes" in caplog.text
    finally:
        passes._library.cache_clear()


def test_a_library_is_compiled_once_for_all_processes(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    commands = []
    run = subprocess.run
    monkeypatch.setattr(subprocess, "run", lambda *a, **k: commands.append(a[0]) or run(*a, **k))
    for _ in range(2):
        library = load_c("climlstm.data.store", "passes.c", otherwise="-")
        assert library is not None
        assert library.normalise
    assert len(commands) == 2  # compile and link
    (kept,) = (tmp_path / "climlstm/compiled").iterdir()
    kept.parent.chmod(0o777)  # others could have put something there
    assert load_c("climlstm.data.store", "passes.c", otherwise="-") is not None
    assert len(commands) == 4
