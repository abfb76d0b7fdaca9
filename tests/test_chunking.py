"""Chunks, steps and blocks of cells that do not suit."""

import numpy as np
import xarray as xr

from climlstm.audit import audit as audits
from climlstm.audit import chunking
from climlstm.data.cube.cube import plan_cube
from climlstm.grid import LatLon
from climlstm.steps import Step
from tests.small_audits import PERIODS, found, make_config, make_source, rules


def test_uneven_coarsening():
    latitude, longitude = np.linspace(88, -88, 12), np.arange(12) * 30.0
    assert rules(chunking.check_coarsening(LatLon(latitude, longitude), 4)) == set()
    [finding] = chunking.check_coarsening(LatLon(latitude[:-1], longitude), 4)
    assert finding.rule == "coarsening-uneven"
    assert finding.value == "11 rows, blocks of 4: 3 left over"
    on_pole = LatLon(np.linspace(90, -75, 12), longitude)
    [pole] = chunking.check_coarsening(on_pole, 4)
    assert "cells are half as high" in pole.what
    assert rules(chunking.check_coarsening(on_pole, 1)) == set()


def test_chunks_that_are_read_in_vain():
    region = {"latitude": [80, 30], "longitude": [0, 80]}  # 3 of 8 rows, 4 of 16 columns
    source = make_source()
    config = make_config(region=region)
    result = audits.audit(config, plan_cube(source, config.data))
    chunks = [f for f in result.findings if f.rule == "chunks-in-vain"]
    assert [f.value for f in chunks] == [
        "10.7 times as much: 8 of which 3 along latitude, 16 of which 4 along longitude"
    ]
    assert "'t2m', 'msl'" in chunks[0].what
    assert found(source.chunk({"latitude": 3, "longitude": 4}), config) == set()
    thinned = make_config(step="1d")
    assert found(source, thinned) == {"chunks-in-vain"}
    assert found(source.chunk({"time": 1}), thinned) == set()


def test_steps_that_do_not_divide():
    times = make_source()["time"].values
    for data, forecast, number in (
        ({}, "24h", 0),
        ({}, "9h", 1),
        ({"step": "9h"}, "9h", 2),  # neither the day nor the source's 6 h
        ({"step": "2d"}, "2d", 0),
    ):
        config = make_config(**data)
        changed = config.forecast.model_copy(update={"every": Step.parse(forecast)})
        config = config.model_copy(update={"forecast": changed})
        findings = list(chunking.check_steps(config, times))
        assert [f.rule for f in findings] == ["steps-do-not-divide"] * number, (data, forecast)


def test_a_training_set_too_short_for_the_network():
    assert found(parameters=10_000) == set()
    assert found(parameters=10_000_000) == {"training-too-short"}


def test_periods_without_windows():
    short = make_config(periods=PERIODS | {"valid": ["2001-02-16", "2001-02-16T12:00"]})
    assert found(config=short) == {"period-without-windows"}
    elsewhere = {n: [d.replace("2001", "1971") for d in span] for n, span in PERIODS.items()}
    assert "periods-without-data" in found(config=make_config(periods=elsewhere))
    few = make_config(periods=PERIODS | {"train": ["2001-01-01", "2001-01-02"]})
    assert found(config=few) == {"fewer-windows-than-a-batch"}


def test_a_coordinate_with_other_chunks_stops_nothing():
    """Coordinates besides the axes may be chunked otherwise than the fields."""
    source = make_source()
    hours = xr.DataArray(source["time"].dt.hour.values, dims="time").chunk(time=380)
    height = xr.DataArray(np.ones((8, 16)), dims=("latitude", "longitude")).chunk(latitude=3)
    assert found(source.assign_coords(hour=hours, height=height)) == set()
