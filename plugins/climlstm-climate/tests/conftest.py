"""Fixtures: real analyses and best tracks where they are."""

import os
from pathlib import Path

import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1")

REAL_DATA = Path(
    os.environ.get("CLIMLSTM_REAL_DATA", Path(__file__).parents[4] / "shared" / "data" / "real")
)


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Folder of real data; the test is skipped where it is absent."""
    if not REAL_DATA.is_dir():
        pytest.skip(f"no real data at {REAL_DATA}; set CLIMLSTM_REAL_DATA to have this test")
    return REAL_DATA
