"""Rollouts of many steps: in pieces, in constant memory, and going on after an interruption."""

import dataclasses
import tracemalloc

import numpy as np
import pandas as pd
import pytest
import torch
import xarray as xr

from climlstm.errors import CheckpointError
from climlstm.forecasting import Ensemble, forecast_batches, open_forecasts, write_forecasts
from climlstm.forecasting import rollout as rollouts
from climlstm.forecasting import store as stores
from climlstm.grid import LatLon
from climlstm.model.convlstm import ConvLSTM
from climlstm.model.forecaster import Forecaster
from climlstm.model.spec import Spec
from climlstm.steps import Step

INITS = np.array(["2001-02-01", "2001-02-03"], "datetime64[ns]")
SPEC = Spec(
    channels=("t2m", "u10"),
    units=("K", "m s-1"),
    levels=(None, None),
    sign=(1, -1),
    forcing=("season_sin", "season_cos"),
    static=(),
    step=Step.parse("6h"),
    grid=LatLon(np.array([67.5, 22.5, -22.5, -67.5]), np.arange(0.0, 360, 45)),
    history=3,
    options={"hidden": (3,), "blocks": 0, "diffusion": False},  # that may blow up, drawn at random
)


def forecaster_of(**changes):
    """A forecaster with weights drawn at random: it neither stands still nor blows up."""
    torch.manual_seed(0)
    made = Forecaster(
        dataclasses.replace(SPEC, **changes),
        mean=torch.tensor([280.0, 0.0]),
        std=torch.tensor([10.0, 5.0]),
        tendency_std=torch.tensor([1.0, 1.0]),
    ).eval()
    with torch.no_grad():
        for weights in made.network.parameters():
            weights += 0.1 * torch.randn(weights.shape)
    return made


def cube(grid=SPEC.grid):
    times = pd.date_range("2001-01-01", periods=200, freq="6h")
    values = np.random.default_rng(0).normal(0, 5, (200, *grid.shape)).astype("float32")
    dims = ("time", "latitude", "longitude")
    fields = {
        "t2m": (dims, 280 + values, {"units": "K"}),
        "u10": (dims, values, {"units": "m s-1"}),
    }
    return xr.Dataset(fields, {"time": times, **grid.coordinates()})


def made(forecaster, steps, **options):
    [found] = forecast_batches(forecaster, cube(), init_times=INITS, steps=steps, **options)
    return found


@pytest.mark.parametrize(
    ("network", "options"),
    [
        ("convlstm", {"hidden": (3,), "blocks": 1}),
        ("convlstm", {"hidden": (3, 4), "blocks": 0, "shared": False, "patch": 2}),
        ("cnn", {"hidden": 4, "blocks": 1}),
    ],
    ids=["convlstm", "encoder", "cnn"],
)
def test_pieces_are_the_forecast_of_one_call_to_the_last_bit(network, options, monkeypatch):
    forecaster = forecaster_of(network=network, options=options)
    whole = made(forecaster, 8)
    assert float(abs(whole["t2m"].diff("lead_time")).min()) > 0
    for most in (1, 3):
        monkeypatch.setattr(rollouts, "MOST_LEADS", most)
        assert rollouts.leads_together(forecaster, 8) == most
        xr.testing.assert_identical(made(forecaster, 8), whole)


class Stopped(Exception):
    pass


def written(forecaster, store, steps=11, stop_at=None, **options):
    """Forecast into a store; stop after a share of the initialisations."""

    def progress(done):
        if stop_at is not None and done >= stop_at:
            raise Stopped

    options = {"cube": cube(), "init_times": INITS, "provenance": {"digest": "a"}} | options
    write_forecasts(store, forecaster, steps=steps, progress=progress, **options)


@pytest.fixture
def in_pieces(monkeypatch):
    """Pieces of four leads, each kept; the leads that networks compute are counted."""
    computed = []
    steps = Forecaster.steps

    def counted(self, history, forcing, *rest, **more):
        computed.append((len(history), forcing.shape[1] - history.shape[1] + 1))
        return steps(self, history, forcing, *rest, **more)

    monkeypatch.setattr(rollouts, "MOST_LEADS", 4)
    monkeypatch.setattr(stores, "KEPT_EVERY_S", 0.0)
    monkeypatch.setattr(Forecaster, "steps", counted)
    return computed


@pytest.mark.parametrize("noise", [0, 2], ids=["one", "ensemble"])
def test_an_interrupted_rollout_goes_on_within_its_start(noise, tmp_path, in_pieces):
    """Three members in two flocks: stopped after eight of eleven leads, three are left for each."""
    forecaster = forecaster_of(noise=noise)
    options = {"batch_size": 4, "ensemble": Ensemble(3 if noise else 1, 7)}
    written(forecaster, tmp_path / "whole.zarr", **options)
    whole = open_forecasts(tmp_path / "whole.zarr").load()
    assert whole["t2m"].encoding["chunks"][-3] == 4
    in_pieces.clear()
    with pytest.raises(Stopped):
        written(forecaster, tmp_path / "f.zarr", stop_at=1.4, **options)
    assert not (tmp_path / "f.zarr").exists()
    in_pieces.clear()
    written(forecaster, tmp_path / "f.zarr", **options)
    assert in_pieces == ([(4, 3), (2, 3)] if noise else [(2, 3)])
    xr.testing.assert_identical(open_forecasts(tmp_path / "f.zarr").load(), whole)
    assert not list(tmp_path.glob("f.zarr/.[a-y]*"))


def test_what_a_rollout_goes_on_from_is_named_where_it_is_damaged(tmp_path, in_pieces):
    forecaster = forecaster_of()
    with pytest.raises(Stopped):
        written(forecaster, tmp_path / "f.zarr", stop_at=1)
    [kept] = (tmp_path / "f.zarr.part").rglob("*.safetensors")
    kept.write_bytes(b"x" * 100)
    with pytest.raises(CheckpointError, match=r"cannot be read.*Delete it"):
        written(forecaster, tmp_path / "f.zarr")
    kept.unlink()
    written(forecaster, tmp_path / "f.zarr")
    assert open_forecasts(tmp_path / "f.zarr").notnull().all().to_array().all()


def test_memory_does_not_grow_with_the_steps(tmp_path, in_pieces, monkeypatch):
    """Neither what a network is given at once grows, nor what NumPy holds, but for times."""
    monkeypatch.setattr(rollouts, "MOST_LEADS", 40)
    grid = LatLon(np.arange(85.0, -90, -10), np.arange(0.0, 360, 10))
    forecaster, known = forecaster_of(grid=grid), cube(grid)

    def peak(steps):
        in_pieces.clear()
        tracemalloc.start()
        written(forecaster, tmp_path / f"{steps}.zarr", steps, cube=known, init_times=INITS[:1])
        most = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert in_pieces == [(1, 40)] * (steps // 40)
        return most

    short, long = peak(80), peak(400)
    assert long - short < 320 * 18 * 36 * 4 / 4  # a quarter of one channel
    opened = open_forecasts(tmp_path / "400.zarr")
    assert opened["t2m"].notnull().all()
    valid = opened["init_time"].values[0] + opened["lead_time"].values[-1]
    assert valid > known["time"].values[-1]


def test_a_network_that_takes_no_memory_forecasts_in_one_piece(monkeypatch):
    class Plain(ConvLSTM):
        def steps(self, history, forcing):
            return super().steps(history, forcing)

    forecaster = forecaster_of()
    whole = made(forecaster, 6)
    monkeypatch.setattr(rollouts, "MOST_LEADS", 2)
    forecaster.network.__class__ = Plain
    assert rollouts.leads_together(forecaster, 6) == 6
    xr.testing.assert_identical(made(forecaster, 6), whole)
