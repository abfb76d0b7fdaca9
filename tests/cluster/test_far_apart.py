"""Two hosts far apart: with Ray's own time-outs, which forgive more."""

import time

import pytest

pytest.importorskip("ray", reason="needs climlstm[ray]")


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_a_short_break_in_the_link_costs_only_its_time_with_the_default_timeouts(
    far_apart, submit, undisturbed
):
    run = submit(far_apart, "cluster.workers=2")
    run.wait_for_checkpoint(after=6)
    far_apart.host(2).cable("down")
    time.sleep(10)
    far_apart.host(2).cable("up")
    run.wait_for_checkpoint(after=run.kept())
    run.finish(undisturbed)
    assert len(run.records("start")) == 1
