"""The house keeps its size and order: `python -m tests.house` prints what stands where."""

import pytest

from tests import house

BOUNDS = {
    "rooms": 24,
    "floors": 16,  # the commands enter by the face
    "circles of modules": 0,
    "circles of rooms": 0,
    "longest file": 350,
    "longest function": 60,
    "lines": 48_400,
    "fragments": 0,
    "classes of one name": 2,
    "strangers to the model": 0,
}
"""What the house may measure at most. A change that makes it smaller lowers the bound."""


@pytest.fixture(scope="module")
def measured() -> dict[str, int]:
    return house.measures()


@pytest.mark.parametrize("name", BOUNDS)
def test_house_is_no_larger_than_its_bounds(name, measured):
    assert measured[name] <= BOUNDS[name]


def test_every_measure_has_a_bound(measured):
    assert set(measured) == set(BOUNDS)


def test_a_docstring_that_hangs_on_the_name_above_it_is_found(monkeypatch):
    text = '"""Whole."""\nwidth = 1\n"""Of the halo."""\ndef f():\n    """As `g`."""\n'
    monkeypatch.setattr(house, "trees", lambda: {house.ROOT / "a.py": house.ast.parse(text)})
    assert house.fragments() == ["a.py:3 Of the halo.", "a.py:5 As `g`."]
