"""Work spread over Ray: the same results as in one process, also where processes are killed."""

import hashlib
import math
import os
import signal
import sys
import threading
from concurrent.futures import Executor
from contextlib import contextmanager
from functools import partial

import numpy as np
import pandas as pd
import pytest
import xarray as xr

pytest.importorskip("ray", reason="needs climlstm[ray]")

import ray

from climlstm import runs
from climlstm.data.prepare import prepare
from climlstm.data.statistics import compute as computing
from climlstm.data.statistics.compute import STATISTICS
from climlstm.data.statistics.statistics import Statistics
from climlstm.errors import ClusterError, DataError
from climlstm.forecasting import open_forecasts
from climlstm.on_ray import tasks
from climlstm.on_ray.tasks import RayExecutor
from climlstm.runs import plan_preparation

ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])  # workers do not see tests


@pytest.fixture(scope="module")
def executor():
    with ray.init(num_cpus=2, include_dashboard=False, object_store_memory=200_000_000):
        yield RayExecutor(workers=2)


def first_time(folder, item) -> bool:
    name = hashlib.sha256(str(item).encode()).hexdigest()
    try:
        (folder / name).touch(exist_ok=False)
    except FileExistsError:
        return False
    return True


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def square(folder, number):
    if number in (1, 4) and first_time(folder, number):
        die()
    if number == 2 and first_time(folder, number):
        raise ConnectionResetError("the storage has no time")
    return number * number


def test_killed_tasks_and_failing_storage_are_tried_again(executor, tmp_path):
    assert list(executor.map(partial(square, tmp_path), range(8))) == [n * n for n in range(8)]
    assert len(list(tmp_path.iterdir())) == 3


def fail(value):
    raise DataError(f"{value} will not do")


def test_what_the_user_must_put_right_comes_back_as_it_was_raised(executor):
    with pytest.raises(DataError, match=r"^7 will not do$"):
        executor.submit(fail, 7).result()


def test_a_task_that_never_survives_is_given_up(executor, monkeypatch):
    monkeypatch.setattr(tasks, "RETRIES", 1)
    with pytest.raises(ClusterError, match="lost 2 times"):
        RayExecutor().submit(die).result()


def test_what_calls_share_is_stored_once(executor, monkeypatch):
    stored = []
    monkeypatch.setattr(ray, "put", lambda value, put=ray.put: stored.append(value) or put(value))
    shared = partial(np.dot, np.ones(1000))
    assert list(executor.map(shared, [np.ones(1000)] * 5)) == [1000.0] * 5
    assert stored == [shared]


def test_a_store_prepared_by_ray_is_that_of_threads(executor, small_run, tmp_path, monkeypatch):
    monkeypatch.setattr(computing, "BYTES_OF_A_CALL", 1 << 21)  # several calls, also here
    config = small_run()
    stores = []
    for name, scheduler in (("threads", "threads"), ("ray", executor)):
        out = tmp_path / f"{name}.zarr"
        prepare(plan_preparation(config, out), out, data=config.data, scheduler=scheduler)
        stores.append(xr.open_zarr(out))
    here, there = stores
    xr.testing.assert_equal(here.load(), there.load())
    known, spread = (Statistics.from_dict(s.attrs[STATISTICS]) for s in stores)
    for name in ("mean", "std", "tendency_std"):
        np.testing.assert_allclose(getattr(spread, name), getattr(known, name), rtol=1e-5)
    assert spread.missing == known.missing


def killed_once(folder, function, *items):
    """The call, but the first process that makes it is killed in its midst, or at its end."""
    if first_time(folder, items):
        if len(list(folder.iterdir())) % 2:
            threading.Timer(0.05, die).start()
        function(*items)
        die()
    return function(*items)


class Deadly(Executor):
    """The first process of some calls, by their number, is killed."""

    def __init__(self, executor, folder, calls):
        self.executor, self.folder, self.calls = executor, folder, calls
        self.number = 0
        folder.mkdir()

    def submit(self, fn, /, *args):
        self.number += 1
        if self.number in self.calls:
            fn = partial(killed_once, self.folder, fn)
        return self.executor.submit(fn, *args)


@pytest.fixture
def deadly(executor, tmp_path, monkeypatch):
    deadly = Deadly(executor, tmp_path / "deaths", calls={2, 5, 8})

    @contextmanager
    def spread(address, *, gpu=False):
        yield None if address is None else deadly

    for step in ("forecasting", "evaluation"):
        monkeypatch.setattr(f"climlstm.runs.{step}.spread_over", spread)
    return deadly


@pytest.mark.timeout(280)
def test_forecasts_and_scores_of_killed_processes_are_those_of_one(trained, tmp_path, deadly):
    config = trained.config
    forecast = config.forecast.model_copy(update={"batch_size": 5})
    trained = type(trained)(
        trained.checkpoint, config.model_copy(update={"forecast": forecast}), trained.provenance
    )
    number = runs.forecast(trained, tmp_path / "one.zarr").sizes["init_time"]
    seen = []
    runs.forecast(trained, tmp_path / "many.zarr", address="auto", progress=seen.append)
    assert deadly.number == 1 + math.ceil(number / 5)  # who chose the precision, and the batches
    assert len(list(deadly.folder.iterdir())) == 2
    assert seen[-1] == number
    one, many = (open_forecasts(tmp_path / f"{name}.zarr") for name in ("one", "many"))
    xr.testing.assert_identical(one.load(), many.load())
    assert not list((tmp_path / "many.zarr").glob(".*e"))

    progress = []
    evaluators = [type(c)(name=c.name) for c in config.evaluation.evaluators]
    alone = runs.evaluate(one, evaluators=evaluators)
    spread = runs.evaluate(many, evaluators=evaluators, address="auto", progress=progress.append)
    assert len(list(deadly.folder.iterdir())) == 3
    assert progress[-1] == 1
    pd.testing.assert_frame_equal(alone.scores, spread.scores, check_exact=True)
    for name in alone.cases:
        pd.testing.assert_frame_equal(alone.cases[name], spread.cases[name], check_exact=True)
