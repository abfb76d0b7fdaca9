"""GPUs and workers that are not there: an error within a minute, with what is asked and found."""

import logging
import os
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from dataclasses import replace

import psutil
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from climlstm import runs
from climlstm.environment import check_gpus
from climlstm.errors import ConfigError
from climlstm.runs import parse_times
from climlstm.training.storage import run_folder

NO_GPU = r"which takes 1 GPU on this machine, but PyTorch .* finds none\. {}, or use a machine"


@pytest.fixture(autouse=True)
def without_gpus(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)


def test_a_plain_training_on_a_gpu_that_is_not_there(small_run):
    told = "cluster.gpu is true, " + NO_GPU.format("Set cluster.gpu=false")
    with pytest.raises(ConfigError, match=told):
        runs.train(small_run("cluster.gpu=true"), under_ray=False)
    runs.train(small_run("cluster.gpu=false", "training.epochs=1"), under_ray=False)  # as advised


def test_more_workers_of_torchrun_than_gpus(small_run, monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    for name in ("WORLD_SIZE", "LOCAL_WORLD_SIZE"):
        monkeypatch.setenv(name, "4")
    told = "takes 4 GPUs on this machine, but PyTorch .* finds 1 of them.*, or use fewer workers"
    with pytest.raises(ConfigError, match=told):
        runs.train(small_run("cluster.gpu=true"), under_ray=False)


def test_a_forecast_on_a_gpu_that_is_not_there(trained, tmp_path):
    with pytest.raises(ConfigError, match="--gpu was given, " + NO_GPU.format("Leave it out")):
        runs.forecast(
            trained, tmp_path / "f.zarr", init_times=parse_times(["2001-03-12"]), gpu=True
        )
    assert not list(tmp_path.iterdir())


def test_a_run_trained_on_gpus_forecasts_where_there_is_none(trained, tmp_path):
    cluster = trained.config.cluster.model_copy(update={"gpu": True})
    config = trained.config.model_copy(update={"cluster": cluster})
    inits = parse_times(["2001-03-12"])
    found = replace(trained, config=config)
    assert runs.forecast(found, tmp_path / "f.zarr", init_times=inits).sizes["init_time"] == 1


def test_gpus_that_are_there_are_not_in_the_way(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    check_gpus(2, "cluster.gpu is true", "Set cluster.gpu=false")


@pytest.fixture
def ray_with(monkeypatch):
    """Lets the commands that use Ray meet a cluster with these hosts, and none be started."""
    pytest.importorskip("ray", reason="needs climlstm[ray]")
    from climlstm.on_ray import cluster, tasks, tuning

    def meet(*hosts):
        @contextmanager
        def connected(address, **_):
            yield list(hosts)

        for module in (cluster, tasks, tuning):
            monkeypatch.setattr(module, "connected", connected)

    return meet


def tune(config):
    from climlstm.config import TuneConfig
    from climlstm.on_ray.tuning import tune_on_ray

    space = TuneConfig(keys={"training.learning_rate": (0.1, 0.2)})
    tune_on_ray(config.model_copy(update={"tune": space}))


def spread(config):
    from climlstm.on_ray.tasks import ray_executor

    with ray_executor(None, gpu=config.cluster.gpu):
        pass


def train(config):
    from climlstm.on_ray.training import train_on_ray

    train_on_ray(config)


@pytest.mark.parametrize(
    ("act", "settings", "asked", "there"),
    [
        (train, ["cluster.workers=3"], "cluster.workers is 3, which takes 3 CPUs", r"2 \+ 0 on 2"),
        (train, ["cluster.gpu=true"], "and cluster.gpu true, which takes 1 GPUs", r"0 \+ 0 on 2"),
        (tune, ["cluster.gpu=true"], "cluster.gpu is true, which takes 1 GPUs", r"0 \+ 0 on 2"),
        (tune, ["training.threads=3"], "threads is 3, which takes 3 CPUs, 3 on one", r"2 \+ 0 on"),
        (spread, ["cluster.gpu=true"], "--gpu was given, which takes 1 GPUs", r"0 \+ 0 on 2"),
    ],
)
def test_a_ray_without_room_is_an_error(small_run, ray_with, act, settings, asked, there):
    ray_with({"CPU": 2}, {"CPU": 0})
    with pytest.raises(ConfigError, match=f"{asked}.*but Ray has {there}.*Ask for less"):
        act(small_run(*settings))


def test_a_cluster_that_may_grow_is_waited_for_with_a_word(caplog):
    pytest.importorskip("ray", reason="needs climlstm[ray]")
    from climlstm.on_ray.cluster import check_room

    with caplog.at_level(logging.WARNING):
        check_room([{"CPU": 2}], {"GPU": 1}, 2, asked="cluster.gpu is true", may_grow=True)
    assert "takes 2 GPUs, but Ray has 0 on 1 host. Waiting for hosts to join" in caplog.text
    caplog.clear()
    check_room([{"GPU": 1}, {"GPU": 1}], {"GPU": 1}, 2, asked="", may_grow=True)
    assert not caplog.text


@settings(max_examples=60, deadline=None)
@given(
    hosts=st.lists(
        st.fixed_dictionaries({"CPU": st.integers(0, 6), "GPU": st.integers(0, 3)}),
        min_size=1, max_size=3,
    ),
    name=st.sampled_from(["CPU", "GPU"]),
    amount=st.integers(1, 4),
    count=st.integers(1, 6),
)  # fmt: skip
def test_what_is_asked_is_refused_just_where_it_finds_no_room(hosts, name, amount, count):
    """A worker has its CPUs or GPUs on one host, as Ray places it."""
    pytest.importorskip("ray", reason="needs climlstm[ray]")
    from climlstm.on_ray.cluster import check_room

    placed = 0
    for host in hosts:
        left = host[name]
        while left >= amount:
            placed, left = placed + 1, left - amount
    each = {name: amount}
    if placed >= count:
        check_room(hosts, each, count, asked="this", may_grow=False)
        return
    with pytest.raises(ConfigError, match=r"^this, which takes .* but Ray has .* Ask for less"):
        check_room(hosts, each, count, asked="this", may_grow=False)


@settings(max_examples=30, deadline=None)
@given(there=st.integers(0, 9), wanted=st.integers(1, 9))
def test_gpus_are_counted(there, wanted):
    before, torch.cuda.device_count = torch.cuda.device_count, lambda: there
    try:
        if there >= wanted:
            check_gpus(wanted, "cluster.gpu is true", "Set cluster.gpu=false")
            return
        found = f"finds {there} of them" if there else "finds none"
        with pytest.raises(ConfigError, match=f"takes {wanted} GPUs? on this machine.* {found}"):
            check_gpus(wanted, "cluster.gpu is true", "Set cluster.gpu=false")
    finally:
        torch.cuda.device_count = before


def test_room_that_others_have_is_waited_for_with_a_word(monkeypatch, caplog):
    ray = pytest.importorskip("ray", reason="needs climlstm[ray]")
    from climlstm.on_ray.cluster import warn_if_busy

    monkeypatch.setattr(ray, "available_resources", lambda: {"CPU": 3.0})
    with caplog.at_level(logging.WARNING):
        warn_if_busy({"CPU": 1}, 3)
        assert not caplog.text
        warn_if_busy({"CPU": 2}, 2)
        warn_if_busy({"GPU": 1}, 2)
    assert "4 CPUs are needed, and only 3 are free now" in caplog.text
    assert "2 GPUs are needed, and only 0 are free now" in caplog.text


def climlstm(*arguments):
    return subprocess.Popen(
        [sys.executable, "-m", "climlstm", *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=os.environ | {"CUDA_VISIBLE_DEVICES": "", "COLUMNS": "500"},
    )


@pytest.mark.slow
@pytest.mark.timeout(200)
def test_a_run_that_waits_for_a_cluster_says_so_and_ends_on_sigterm(run_file, small_run):
    pytest.importorskip("ray", reason="needs climlstm[ray]")
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "num_gpus": 0})
    asked = ["train", run_file, "--set", "cluster.gpu=true", "--address", cluster.address]
    try:
        waiting = climlstm(*asked)
        lines = iter(waiting.stdout.readline, "")
        assert any("Waiting for hosts to join" in line for line in lines)
        time.sleep(10)
        assert waiting.poll() is None
        waiting.send_signal(signal.SIGTERM)
        said = waiting.communicate(timeout=30)[0]
        assert waiting.returncode == 128 + signal.SIGTERM, said
        assert "Traceback" not in said
        runs.train(small_run("training.epochs=1"), address=cluster.address)  # nothing is in the way
        assert list(run_folder(small_run()).glob("step-*"))
    finally:
        cluster.shutdown()


@pytest.mark.slow
@pytest.mark.timeout(100)
def test_a_local_run_without_gpus_ends_within_a_minute_and_leaves_nothing(run_file):
    pytest.importorskip("ray", reason="needs climlstm[ray]")
    before = {p.pid for p in psutil.Process().children(recursive=True)}
    for command in ("train", "tune"):
        space = "tune={keys: {training.learning_rate: [0.1, 0.2]}}"
        process = climlstm(command, run_file, "--set", "cluster.gpu=true", "--set", space)
        said = process.communicate(timeout=60)[0]
        assert process.returncode == 1
        assert "cluster.gpu is true, which takes 1 GPU on this machine" in said
        assert "Traceback" not in said
    assert {p.pid for p in psutil.Process().children(recursive=True)} == before
