"""Jobs on two hosts: one trains on both, and goes on when a worker or a host is lost.

The processes of the hosts are real, and so are Ray, gloo and the network between them.
"""

import time

import pytest

pytest.importorskip("ray", reason="needs climlstm[ray]")

from climlstm.runs import train_run

SHORT = ["training.epochs=1"]
LONG = ["training.epochs=12", "training.validate_every=10", "cluster.max_failures=3"]
"""264 batches, a checkpoint every ten of them."""


def options(*overrides):
    return [argument for override in overrides for argument in ("--set", override)]


def losses(records):
    return {r["step"]: r["valid_loss"] for r in records if r["event"] == "valid"}


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_job_trains_on_both_hosts_reading_one_catalog(cluster, run_file, small_run, records):
    alone = small_run("name=alone", *SHORT)
    train_run(alone, under_ray=False)

    submit = cluster.climlstm("submit", run_file, *options(*SHORT, "cluster.workers=2"))
    for host in cluster.hosts.values():
        cluster.wait_for(host.train_workers, seconds=180, what=f"training on {host.address}")
    output = submit.finish(240)

    assert "2 worker(s)" in output
    together = records(small_run())
    assert losses(together) == pytest.approx(losses(records(alone)), rel=1e-4)
    listed = cluster.climlstm("jobs", "list").finish(120)
    assert "SUCCEEDED" in listed


@pytest.fixture
def undisturbed(small_run, records):
    """Validation losses of the long run in one process."""
    config = small_run("name=undisturbed", *LONG)
    train_run(config, under_ray=False)
    return losses(records(config))


def go_on_after(harm, cluster, submit, records, config):
    """Do harm in the middle of the run.

    Returns the seconds until training goes on, those from submitting to its begin, the journal.
    """

    def steps():
        return max(losses(records(config)), default=0)

    cluster.wait_for(lambda: steps() >= 60, seconds=180, what="60 steps")
    harm()
    began = time.time()

    def restarts():
        return [r for r in records(config, "start") if r["time"] > began]

    cluster.wait_for(restarts, seconds=180, what="a training that goes on")
    recovery_s = restarts()[0]["time"] - began
    assert restarts()[0]["step"] >= 50, "it went on from an older checkpoint than the last"
    submit.finish(300)
    journal = records(config)
    # Nearly all of both times are imports, which a machine busy with other things stretches alike.
    return recovery_s, journal[0]["time"] - submit.began, journal


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_killed_worker_costs_only_time(
    cluster, run_file, small_run, records, undisturbed, record_property
):
    submit = cluster.climlstm("submit", run_file, *options(*LONG, "cluster.workers=2"))
    away = list(cluster.hosts.values())[1]

    def kill():
        for worker in away.train_workers():
            worker.kill()

    recovery_s, start_s, journal = go_on_after(kill, cluster, submit, records, small_run())
    record_property("recovery_s", recovery_s)
    print(f"recovered from a killed worker in {recovery_s:.1f} s; first start {start_s:.1f} s")
    assert losses(journal) == pytest.approx(undisturbed, rel=1e-3)
    assert journal[-1]["event"] == "end"
    assert recovery_s < max(30, start_s)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_killed_host_is_done_without(
    cluster, run_file, small_run, records, undisturbed, record_property
):
    submit = cluster.climlstm("submit", run_file, *options(*LONG, "cluster.workers=[1, 2]"))
    away = list(cluster.hosts.values())[1]
    cluster.wait_for(away.train_workers, seconds=180, what="training on both hosts")

    recovery_s, start_s, journal = go_on_after(
        away.pull_the_plug, cluster, submit, records, small_run()
    )
    record_property("recovery_s", recovery_s)
    print(f"recovered from a killed host in {recovery_s:.1f} s; first start {start_s:.1f} s")
    starts = [r["workers"] for r in journal if r["event"] == "start"]
    assert starts[0] == 2
    assert starts[-1] == 1
    assert losses(journal) == pytest.approx(undisturbed, rel=1e-3)
    assert recovery_s < max(60, start_s)
