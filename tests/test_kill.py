"""SIGKILL at random moments: a resumed run ends with the weights and losses of the unbroken one.

Bit for bit in one process on CPU. With several workers, whose sums of gradients are rounded in
another order, within ROUNDING. Few kills by default; `pytest -m slow -s tests/test_kill.py` makes
hundreds and prints what happened. CLIMLSTM_KILLS sets how many.
"""

import json
import os
import random
import signal
import socket
import time
from collections import Counter
from multiprocessing import get_context

import pytest
import torch

from climlstm.training import checkpoint
from climlstm.training.progress import JOURNAL, read_journal
from climlstm.training.storage import FolderStorage, run_folder
from tests.checkpoints import tensors_of

SETTINGS = (
    "training.epochs=2",
    "training.validate_every=6",
    "training.checkpoint_minutes=0.002",  # 0.12 s: most kills find one that is not of a validation
    "training.validation_windows=8",
)

ROUNDING = 2e-4
"""Largest difference of a weight over the largest of its tensor, for other numbers of workers.
Adam divides by the root of small second moments, which enlarges the rounding of float32."""

SECONDS_TO_END = 120.0

forkserver = get_context("forkserver")
forkserver.set_forkserver_preload(["climlstm.runs", "climlstm.training.task", "torch.distributed"])


def work(config, rank, world, port, told):
    """One worker of a training; of several under the environment that torchrun gives them."""
    import torch

    from climlstm.training import agreement
    from climlstm.training.loop import prepare_training

    torch.set_num_threads(1)
    agreement.SECONDS_BETWEEN_MEETINGS = 0.05
    names = {"RANK": rank, "WORLD_SIZE": world, "LOCAL_RANK": rank, "LOCAL_WORLD_SIZE": world}
    os.environ |= {name: str(value) for name, value in names.items()} if world > 1 else {}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    storage = FolderStorage(run_folder(config))
    latest = storage.latest()
    told.put("started")
    with prepare_training(config, storage, resume_from=latest) as training:
        told.put("training")
        training.run()


def run(config, *, workers=1, kill_after=None, at="training", rng=random):
    """Train until the end, or until SIGKILL so many seconds after it began; whether it ended.

    at: from when the seconds count, the first step or, before it, the reading of statistics.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    told = forkserver.Queue()
    processes = [
        forkserver.Process(target=work, args=(config, rank, workers, port, told))
        for rank in range(workers)
    ]
    for process in processes:
        process.start()
    while at is not None and workers > 0:
        workers -= told.get(timeout=SECONDS_TO_END) == at
    if kill_after is not None:
        processes[0].join(kill_after)
        victim = rng.choice(processes)
        if victim.is_alive():
            os.kill(victim.pid, signal.SIGKILL)
            victim.join()
            for other in processes:  # they would wait for the one that is lost
                other.kill()
    for process in processes:
        process.join(SECONDS_TO_END)
        assert process.exitcode is not None, "a worker hangs"
    codes = {process.exitcode for process in processes}
    lost = {-signal.SIGKILL, 1} if -signal.SIGKILL in codes else set()  # 1: missed its neighbour
    assert codes <= {0} | lost, codes
    return codes == {0}


def result(config):
    """Tensors of the last checkpoint, and (step, loss) of each validation."""
    folder = run_folder(config)
    records = [r for r in read_journal(folder / JOURNAL) if r["event"] == "valid"]
    losses = [(r["step"], r["valid_loss"]) for r in records]
    return tensors_of(folder), losses


def look_at(folder, seen):
    """What a kill has left: every checkpoint that counts is whole, and nothing else looks so."""
    seen["half-written folders left by kills"] += len(list(folder.glob(".writing-*")))
    for directory in folder.glob("step-*"):
        checkpoint.check(directory)
        seen["checkpoints found whole after kills"] += 1
    for line in (folder / JOURNAL).read_text().splitlines() if (folder / JOURNAL).exists() else ():
        json.loads(line)


def kill_again_and_again(config, *, kills, seed, seconds, workers=(1,)):
    """Kill a run so often, resuming it each time; returns counts of what happened."""
    rng, seen = random.Random(seed), Counter()
    while True:
        number = rng.choice(workers)
        seen[f"starts with {number} workers"] += 1
        left = seen["kills"] < kills
        ended = run(
            config,
            workers=number,
            kill_after=rng.uniform(0, seconds) if left else None,
            at=rng.choice(("started", *["training"] * 4)) if left else None,
            rng=rng,
        )
        look_at(run_folder(config), seen)
        if ended:
            seen["ends"] += 1
            return seen
        seen["kills"] += 1


@pytest.fixture(scope="module")
def unbroken(small_run_of_module):
    """Its result, and how many seconds it trained."""
    config = small_run_of_module("name=unbroken", *SETTINGS)
    assert run(config)
    [end] = [r for r in read_journal(run_folder(config) / JOURNAL) if r["event"] == "end"]
    return result(config), end["seconds"]


def assert_bit_for_bit(found, expected):
    assert found[1] == expected[1]
    assert found[0].keys() == expected[0].keys()
    for name, tensor in found[0].items():
        assert torch.equal(tensor, expected[0][name]), name


def largest_difference(found, expected):
    """Of the weights, each over the largest of its tensor."""
    names = [name for name in expected[0] if name.startswith(("network.", "weight."))]
    return max(
        float(
            (found[0][name] - expected[0][name]).abs().max()
            / expected[0][name].abs().max().clamp_min(1e-3)
        )
        for name in names
    )


def test_killed_at_random_moments_and_resumed_bit_for_bit(small_run, unbroken):
    config = small_run("name=killed", *SETTINGS)
    seen = kill_again_and_again(config, kills=3, seed=time.time_ns(), seconds=unbroken[1] / 2)
    assert_bit_for_bit(result(config), unbroken[0])
    assert seen["ends"] == 1


@pytest.mark.slow
def test_killed_with_other_numbers_of_workers(small_run, unbroken):
    config = small_run("name=killed", *SETTINGS)
    for workers in (2, 1):
        run(config, workers=workers, kill_after=unbroken[1] / 3)
    run(config, workers=2)
    found = result(config)
    assert [step for step, _ in found[1]] == [step for step, _ in unbroken[0][1]]
    assert [loss for _, loss in found[1]] == pytest.approx(
        [loss for _, loss in unbroken[0][1]], rel=1e-4
    )
    assert largest_difference(found, unbroken[0]) < ROUNDING


@pytest.mark.slow
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("workers", [(1,), (1, 2, 4)], ids=["one process", "1, 2 or 4 workers"])
def test_killed_many_times(small_run_of_module, unbroken, workers):
    kills, seen, worst = int(os.environ.get("CLIMLSTM_KILLS", "100")), Counter(), 0.0
    for number in range(1000):
        if seen["kills"] >= kills:
            break
        config = small_run_of_module(f"name=killed-{len(workers)}-{number}", *SETTINGS)
        seen += kill_again_and_again(
            config, kills=10, seed=number, seconds=unbroken[1] / 3, workers=workers
        )
        found = result(config)
        if len(workers) == 1:
            assert_bit_for_bit(found, unbroken[0])
        worst = max(worst, largest_difference(found, unbroken[0]))
        assert worst < ROUNDING
        print(f"\n{dict(sorted(seen.items()))}, largest difference of a weight {worst:.1e}")
