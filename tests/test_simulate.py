"""The simulated atmosphere: its numerics, its weather, its store."""

import numpy as np
import pytest

from climlstm.data.simulate import simulate, weather
from climlstm.errors import DataError


def test_the_same_seed_gives_the_same_weather():
    short = {"years": 8 / 1461, "spin_up_days": 3}
    first, again = weather(seed=1, **short), weather(seed=1, **short)
    assert first.identical(again)
    assert np.abs(first.msl - weather(seed=2, **short).msl).max() > 100


def test_an_interrupted_run_leaves_no_store(tmp_path):
    def interrupt(share):
        if share > 0.5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        simulate(tmp_path / "demo.zarr", years=0.25, spin_up_days=0, progress=interrupt)
    assert list(tmp_path.iterdir()) == []


def test_an_existing_store_is_not_overwritten(tmp_path):
    with pytest.raises(DataError, match="exists already"):
        simulate(tmp_path, years=1)
