"""Jobs on two hosts: one trains on both, and goes on whatever of them is lost.

The processes of the hosts are real, and so are Ray, gloo and the network between them. Each time
the losses are those of a run in one process that nothing happened to: no sample was left out, none
came twice.
"""

import json
import os
import re
import threading
import time

import pytest

pytest.importorskip("ray", reason="needs climlstm[ray]")

from climlstm.training import checkpoint
from climlstm.training.storage import run_folder


@pytest.fixture
def submitted(cluster, submit):
    return lambda *overrides, **options: submit(cluster, *overrides, **options)


def told(record_property, what, seconds):
    record_property(what, seconds)
    print(f"\n{what}: {seconds:.1f} s")


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_a_job_trains_on_both_hosts_reading_one_catalog(cluster, submitted, undisturbed):
    run = submitted("cluster.workers=2")
    run.wait_for(lambda: all(h.train_workers() for h in cluster.hosts.values()), "two workers")
    output = run.finish(undisturbed)
    assert "2 worker(s)" in output
    assert "SUCCEEDED" in cluster.climlstm("jobs", "list").finish(120)


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_a_killed_worker_costs_only_time_and_nothing_is_left_behind(
    cluster, submitted, undisturbed, record_property
):
    before = left_behind(cluster)
    run = submitted("cluster.workers=2", seconds=0.2)

    def kill():
        for worker in cluster.host(2).train_workers():
            worker.kill()

    start, seconds = run.go_on_after(kill)
    told(record_property, "training goes on after a killed worker", seconds)
    assert start["workers"] == 2
    run.finish(undisturbed)
    assert seconds < 30
    cluster.wait_for(lambda: quiet(cluster), seconds=60, what="a cluster at rest")
    assert left_behind(cluster)["files"] == before["files"]


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_a_killed_host_is_done_without_and_used_again(
    cluster, submitted, undisturbed, record_property
):
    run = submitted("cluster.workers=[1, 2]", seconds=1.0)
    run.wait_for_start(0, workers=2)
    _, seconds = run.go_on_after(cluster.host(2).pull_the_plug, workers=1)
    told(record_property, "training goes on after a killed host", seconds)
    assert seconds < 60
    cluster.add(2)
    back = time.time()
    grown = run.wait_for_start(back, workers=2)
    told(record_property, "two workers again after the host is back", grown["time"] - back)
    run.finish(undisturbed)


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_a_link_that_is_cut_and_mended(cluster, submitted, undisturbed, record_property):
    run = submitted("cluster.workers=[1, 2]", seconds=1.0)
    run.wait_for_start(0, workers=2)
    away = cluster.host(2)
    _, seconds = run.go_on_after(lambda: away.cable("down"), workers=1)
    told(record_property, "training goes on after a link was cut", seconds)
    away.cable("up")
    # Its Ray hears that it was given up, and ends; whoever looks after the host starts it again.
    run.wait_for(lambda: not cluster.alive(2), "a host that notices it was given up")
    cluster.add(2)
    run.wait_for_start(time.time(), workers=2)
    run.finish(undisturbed)


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_a_host_that_says_when_it_goes_loses_no_step(
    cluster, submitted, undisturbed, record_property
):
    run = submitted("cluster.workers=[1, 2]", "cluster.max_failures=0")
    run.wait_for_start(0, workers=2)
    run.wait_for_checkpoint()
    away = cluster.host(2)
    listed = cluster.host(1).run("ray", "list", "nodes", "--format=json")
    nodes = json.loads(listed[listed.index("[") :])
    alive = {n["node_ip"]: n["node_id"] for n in nodes if n["state"] == "ALIVE"}
    noticed = time.time()
    cluster.host(1).run(
        "ray", "drain-node", f"--node-id={alive[away.address]}",
        f"--address={cluster.host(1).address}:6379",
        "--reason=DRAIN_NODE_REASON_PREEMPTION", "--reason-message=spot",
        "--deadline-remaining-seconds=30",
    )  # fmt: skip
    start = run.wait_for_start(noticed, workers=1)
    told(record_property, "training goes on elsewhere after a notice", start["time"] - noticed)
    end = next(r for r in run.records("end") if r["time"] > noticed)
    assert end["reason"] == "a host is to go"
    assert start["step"] == end["step"], "steps were lost"
    cluster.remove(away)
    run.finish(undisturbed)


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_a_worker_that_hangs_is_noticed_after_the_timeout(
    cluster, submitted, undisturbed, record_property
):
    run = submitted("cluster.workers=2", "cluster.timeout=20s")
    hung = []

    def stop():
        hung.extend(cluster.host(2).train_workers())
        for worker in hung:
            worker.suspend()

    _, seconds = run.go_on_after(stop)
    told(record_property, "training goes on after a worker hung (time-out 20 s)", seconds)
    assert seconds < 20 + 60
    run.finish(undisturbed)
    assert not any(worker.is_running() for worker in hung)


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_a_slow_worker_is_named(cluster, submitted, undisturbed):
    run = submitted("cluster.workers=2", slow_rank=1, seconds=0.2)
    run.wait_for(lambda: run.records("note"), "a remark on the slow worker")
    output = run.finish(undisturbed)
    assert re.search(r"worker 1 on host cl\d+n\d is slow: it takes \d\.\d times", output)


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_a_lost_driver_is_submitted_again(cluster, submitted, undisturbed, record_property):
    run = submitted("cluster.workers=[1, 2]")

    def kill():
        drivers = cluster.host(1).running("climlstm train run.yaml --address auto")
        assert drivers
        for driver in drivers:
            driver.kill()

    _, seconds = run.go_on_after(kill)
    told(record_property, "training goes on after a lost driver", seconds)
    assert seconds < 120
    assert "Submitting the run again" in run.finish(undisturbed)


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_a_lost_head_is_waited_for_and_the_run_goes_on_there_and_on_yet_another_cluster(
    cluster, submitted, undisturbed, record_property, monkeypatch
):
    run = submitted("cluster.workers=[1, 2]")
    run.wait_for_checkpoint(after=6)
    cluster.host(1).cable("down")  # nobody hears of it
    cluster.host(1).pull_the_plug()
    since = time.time()
    cluster.complete()
    start = run.wait_for_start(since)
    told(record_property, "training goes on after a lost head", start["time"] - since)
    assert start["step"] > 0
    run.wait_for_checkpoint(after=start["step"])
    assert "Submitting the run again" in run.command.log.read_text()

    run.command.end()
    cluster.remove(cluster.host(1))
    # On the other cluster the plugin is installed.
    path = f"{run.brake.wheel.parent / 'plugins'}:{os.environ.get('PYTHONPATH', '')}"
    monkeypatch.setitem(cluster.environment, "PYTHONPATH", path)
    cluster.complete()
    since, kept = time.time(), run.kept()
    threading.Timer(5, run.brake.release).start()
    cluster.host(1).run(
        "env", f"PYTHONPATH={path}", "climlstm", "train",
        run_folder(run.config) / checkpoint_of(run) / "run.yaml", "--address", "auto", "--resume",
    )  # fmt: skip
    assert run.wait_for_start(since)["step"] >= kept
    run.check(undisturbed)
    for host in list(cluster.hosts.values()):
        cluster.remove(host)


def checkpoint_of(run):
    return checkpoint.latest_checkpoint(run_folder(run.config)).name


def left_behind(cluster):
    """What runs, listens and lies about on the hosts, apart from Ray's own logs."""
    found = {}
    for host in cluster.hosts.values():
        ours = [
            c
            for c in host.processes()
            if c and re.search("-m climlstm|RayTrain|TrainController|JobSupervisor", " ".join(c))
        ]
        ports = host.run("ss", "--tcp", "--udp", "--listening", "--numeric", "--no-header")
        shared = host.run("find", "/dev/shm", "-type", "f").split()
        found[host.name] = (len(ours), len(ports.splitlines()), sorted(shared))
    found["files"] = sorted(path.name for path in cluster.scratch.iterdir())
    return found


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_many_jobs_leave_no_process_port_or_file_behind(cluster, run_file, small_run):
    number = int(os.environ.get("CLIMLSTM_JOBS", "4"))

    def job(index):
        settings = [f"name=short{index}", "training.epochs=1", "cluster.workers=2"]
        arguments = [argument for setting in settings for argument in ("--set", setting)]
        cluster.climlstm("submit", run_file, *arguments).finish()

    job(0)
    cluster.wait_for(lambda: quiet(cluster), seconds=60, what="a cluster at rest")
    before = left_behind(cluster)
    for index in range(1, number):
        job(index)
    cluster.wait_for(
        lambda: no_more_than(before, left_behind(cluster)),
        seconds=90,
        what=f"no more than after the first job: {before}",
    )
    runs = run_folder(small_run()).parent
    assert not list(runs.glob("short*/.writing-*"))


def no_more_than(before, after):
    """Ray itself may have fewer idle processes, which listen, than before."""
    hosts = [name for name in before if name != "files"]
    return after["files"] == before["files"] and all(
        after[h][0] <= before[h][0] and after[h][1] <= before[h][1] and after[h][2] == before[h][2]
        for h in hosts
    )


def quiet(cluster):
    left = left_behind(cluster)
    return not any(left[host.name][0] for host in cluster.hosts.values())
