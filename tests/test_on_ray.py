"""The loop under Ray Train: the same losses as in one process, and what users must put right."""

import ipaddress
import json
import os
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
import torch

pytest.importorskip("ray", reason="needs climlstm[ray]")

from climlstm import runs
from climlstm.errors import ConfigError, DataError, PluginError, TrainingError
from climlstm.model.saving import read_forecaster
from climlstm.on_ray import training
from climlstm.on_ray.training import cpu_share, train_on_ray
from climlstm.training.progress import JOURNAL, read_journal
from climlstm.training.storage import run_folder


def losses(config):
    records = read_journal(run_folder(config) / JOURNAL)
    return [r["valid_loss"] for r in records if r["event"] == "valid"]


def listening():
    """Addresses at which this process and Ray's take connections."""
    here = psutil.Process()
    for process in [here, *here.children(recursive=True)]:
        with suppress(psutil.Error):
            for connection in process.net_connections(kind="inet"):
                if connection.status == psutil.CONN_LISTEN:
                    yield connection.laddr.ip


def left_behind():
    """Processes and files of Ray that a training in this process has started and made."""
    session = f"session_*_{os.getpid()}"  # others may use Ray on this machine, too
    files = [*Path("/tmp").glob(f"ray/{session}"), *Path("/tmp").glob(f"climlstm-ray-*/{session}")]
    return {p.name() for p in psutil.Process().children(recursive=True)}, files


@pytest.mark.timeout(280)
def test_two_ray_workers_train_like_one_process_and_leave_nothing_behind(small_run, run_file):
    """The workers find a loss that only a module beside the run file has."""
    before = left_behind()
    alone = small_run("name=alone")
    runs.train(alone, under_ray=False)

    Path(run_file).with_name("loss_of_ray_test.py").write_text(
        "from climlstm.model.losses import MSE\n\n\nclass Mine(MSE):\n    pass\n"
    )
    own = "training.loss.name=loss_of_ray_test:Mine"
    together = small_run("name=together", "cluster.workers=2", own)
    seen, addresses = [], set()

    def observe(record):
        seen.append(record)
        addresses.update(listening())

    best = runs.train(together, observe=observe)
    assert len(addresses) >= 1
    assert all(ipaddress.ip_address(a.removeprefix("::ffff:")).is_loopback for a in addresses)
    assert losses(together) == pytest.approx(losses(alone), rel=1e-4)
    assert seen[0]["event"] == "start"
    assert seen[0]["workers"] == 2
    assert seen[-1]["event"] == "end"
    first, _ = read_forecaster(best)
    second, _ = read_forecaster(run_folder(alone) / best.name)
    for a, b in zip(first.parameters(), second.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-2, atol=1e-4)
    assert left_behind() == before
    assert not list(run_folder(together).glob(".writing-*"))


@pytest.mark.slow
@pytest.mark.timeout(280)
def test_four_ray_workers_train_like_one_process(small_run):
    import ray

    alone, together = small_run("name=alone"), small_run("name=together", "cluster.workers=4")
    runs.train(alone, under_ray=False)
    with ray.init(num_cpus=4, include_dashboard=False):
        runs.train(together)
    assert losses(together) == pytest.approx(losses(alone), rel=1e-4)


@pytest.mark.slow
@pytest.mark.timeout(200)
def test_what_the_user_must_put_right_comes_back_as_such_and_is_not_tried_again(small_run):
    config = small_run("training.batch_size=400", "cluster.max_failures=3")
    with pytest.raises(DataError, match="fewer than one batch of 400"):
        train_on_ray(config)


WATCHED = """
import json
import sys
from dataclasses import dataclass
from pathlib import Path

from climlstm.model.losses import MSE

calls = []  # names of Ray's functions that the thread that trains calls, for each step


def watch(frame, event, function):
    module, name = frame.f_globals.get("__name__", ""), frame.f_code.co_name
    if event == "c_call":
        module, name = getattr(function, "__module__", None) or "", function.__name__
    if event in ("call", "c_call") and module.split(".")[0] == "ray":
        calls[-1].append(f"{module}.{name}")


@dataclass(frozen=True)
class Watched(MSE):
    file: str = ""

    def __call__(self, prediction, target, *, weight, channels):
        if prediction.requires_grad:
            sys.setprofile(None)
            Path(self.file).write_text(json.dumps(calls))
            calls.append([])
            sys.setprofile(watch)
        return super().__call__(prediction, target, weight=weight, channels=channels)
"""


@pytest.fixture
def plugin(tmp_path, monkeypatch):
    """Makes a loss available here and to Ray's workers, as a distribution in a folder."""

    def install(name, code, entry):
        info = tmp_path / "plugins" / f"{name}-1.0.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(f"[climlstm.losses]\n{entry}\n")
        (info.parent / f"{name}.py").write_text(code)
        monkeypatch.syspath_prepend(str(info.parent))
        monkeypatch.setenv("PYTHONPATH", str(info.parent), prepend=os.pathsep)

    return install


@pytest.mark.slow
@pytest.mark.timeout(200)
def test_no_step_calls_ray(small_run, plugin, tmp_path):
    plugin("watched", WATCHED, "watched = watched:Watched")
    config = small_run(
        f"training.loss={{name: watched, options: {{file: {tmp_path}/calls}}}}", "training.epochs=8"
    )
    train_on_ray(config)
    calls = json.loads((tmp_path / "calls").read_text())
    journal = read_journal(run_folder(config) / JOURNAL)
    assert len(calls) == 22 * 8 - 1  # from one step to the next
    # Once a second it is asked whether to leave, and each record sets Ray's gauges.
    called = [names for names in calls if names]
    assert 0 < len(called) <= len(journal) + journal[-1]["seconds"] + 1, called[len(called) // 2]
    assert len(called) < len(calls) / 2


@pytest.mark.slow
@pytest.mark.timeout(200)
def test_a_training_that_diverges_is_not_tried_again(small_run):
    config = small_run(
        "training.learning_rate=1e30", "training.warmup=0", "cluster.workers=2",
        "cluster.max_failures=3",
    )  # fmt: skip
    with pytest.raises(TrainingError, match="has diverged"):
        train_on_ray(config)
    journal = read_journal(run_folder(config) / JOURNAL)
    assert [r["event"] for r in journal if r["event"] != "train"] == ["start"]


def test_no_cluster_at_the_address(small_run):
    with pytest.raises(ConfigError, match="No Ray cluster answers"):
        train_on_ray(small_run(), address="127.0.0.1:1")


@pytest.mark.slow
@pytest.mark.timeout(200)
def test_hosts_without_the_plugins_of_a_run_are_named_before_it_starts(
    small_run, monkeypatch, plugin
):
    import ray
    from ray.cluster_utils import Cluster

    plugin("one_host", "", "tolerant = climlstm.model.losses:Huber")
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    try:
        cluster.add_node(num_cpus=1, env_vars={"CLIMLSTM_PLUGINS": ""})
        config = small_run("training.loss={name: tolerant}", "cluster.workers=2")
        with ray.init(address=cluster.address):
            for joined_later in (False, True):
                if joined_later:  # when the driver had asked all that were there
                    monkeypatch.setattr(training.cluster, "check_hosts", lambda used: None)
                with pytest.raises(PluginError, match="Not every host") as refused:
                    train_on_ray(config)
                lines = [line for line in str(refused.value).splitlines() if line.startswith("- ")]
                assert len(lines) == 1
                assert "loss 'tolerant' of one_host 1.0" in lines[0]
                assert "pip install 'one_host==1.0'" in lines[0]
        assert not list(run_folder(config).glob("step-*"))
    finally:
        cluster.shutdown()


@pytest.mark.parametrize(
    ("cpus", "workers", "share"),
    [([8], 2, 4), ([4, 4], 2, 4), ([6, 2], 2, 3), ([6, 2], 3, 2), ([1, 1], 2, 1), ([2], 8, 1)],
)
def test_a_worker_has_its_cpus_on_one_host(cpus, workers, share):
    assert cpu_share(cpus, workers) == share
