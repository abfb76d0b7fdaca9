"""Jobs on two hosts: one trains on both, and goes on when a worker or a host is lost.

The processes of the hosts are real, and so are Ray, gloo and the network between them.
"""

import pytest

pytest.importorskip("ray", reason="needs climlstm[ray]")

from climlstm.runs import train_run

# 46 batches of 8 windows; one epoch takes a few seconds on one core.
SHORT = ["training.epochs=1", "cluster.workers=2"]
LONG = ["training.epochs=12", "training.validate_every=10", "cluster.max_failures=3"]


def options(overrides):
    return [argument for override in overrides for argument in ("--set", override)]


def losses(records):
    return [r["valid_loss"] for r in records if r["event"] == "valid"]


def pids(host):
    return {p.pid for p in host.train_workers()}


@pytest.mark.timeout(240)
def test_a_job_trains_on_both_hosts_reading_one_catalog(cluster, run_file, small_run, records):
    alone = small_run("name=alone", "training.epochs=1")
    train_run(alone, under_ray=False)

    submit = cluster.climlstm("submit", run_file, *options(SHORT))
    for host in cluster.hosts.values():
        cluster.wait_for(host.train_workers, seconds=90, what=f"training on {host.address}")
    output = submit.finish(120)

    assert "2 worker(s)" in output
    together = records(small_run())
    assert losses(together) == pytest.approx(losses(records(alone)), rel=1e-4)
    listed = cluster.climlstm("jobs", "list").finish(60)
    assert "SUCCEEDED" in listed
