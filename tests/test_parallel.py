"""Several workers joined by gloo, as torchrun starts them: what they learn together."""

import os
import socket
import subprocess
import sys
from dataclasses import dataclass

import pytest
import torch

from climlstm.config import OuterConfig
from climlstm.model.saving import read_forecaster
from climlstm.training import checkpoint
from climlstm.training.loop import run_training
from climlstm.training.outer import OuterOptimiser
from climlstm.training.parallel import Workers
from climlstm.training.progress import JOURNAL, read_journal
from climlstm.training.storage import run_folder
from tests.checkpoints import assert_same, tensors_of

ONE = Workers(rank=0, world=1, device=torch.device("cpu"))


def losses(config):
    records = read_journal(run_folder(config) / JOURNAL)
    return [r["valid_loss"] for r in records if r["event"] == "valid"]


def weights(config):
    latest = checkpoint.latest_checkpoint(run_folder(config))
    forecaster, _ = read_forecaster(latest)
    return dict(forecaster.named_parameters())


def state(config):
    return tensors_of(run_folder(config))


TRAIN = """
import sys
import torch
from climlstm.config import load_config
from climlstm.errors import TrainingError
from climlstm.training import agreement, checkpoint, loop
from climlstm.training.loop import run_training
from climlstm.training.storage import run_folder

class Killed(Exception):
    pass

# After "--": runs, one after another, in one process group: overrides, separated by spaces.
# A run marked "killed" is broken off at its first report, and one marked "again" resumes it.
# One marked "diverging" says why it cannot go on.
torch.distributed.init_process_group("gloo")
torch.set_num_threads(1)
path, *runs = sys.argv[1:]
for run in runs:
    mark, *overrides = run.split(" ")
    config = load_config(path, overrides)
    resume_from = checkpoint.latest_checkpoint(run_folder(config)) if mark == "again" else None
    def report(metrics):
        if mark == "killed":
            raise Killed

    if mark == "diverging":
        agreement.SECONDS_BETWEEN_MEETINGS = 0
    try:
        run_training(config, report=report, resume_from=resume_from)
    except Killed:
        pass
    except TrainingError as error:
        assert mark == "diverging"
        print(error)
torch.distributed.destroy_process_group()
"""


def train_together(run_file, workers: int, *runs: str) -> list[str]:
    """Train runs, each a mark and its overrides, with so many processes; what each has printed."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", TRAIN, str(run_file), *runs],
            env=os.environ
            | {
                "MASTER_ADDR": "127.0.0.1",
                "MASTER_PORT": str(port),
                "WORLD_SIZE": str(workers),
                "RANK": str(rank),
                "GLOO_SOCKET_IFNAME": "lo",
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in range(workers)
    ]
    outputs = []
    try:
        for process in processes:
            output, _ = process.communicate(timeout=200)
            assert process.returncode == 0, output
            outputs.append(output)
    finally:
        for process in processes:
            process.kill()
    return outputs


def assert_trained_alike(config, other):
    """The same losses and weights within rounding."""
    assert losses(other) == pytest.approx(losses(config), rel=1e-4)
    for one, two in zip(weights(config).values(), weights(other).values(), strict=True):
        torch.testing.assert_close(one, two, rtol=1e-2, atol=1e-4)


@pytest.mark.slow
@pytest.mark.timeout(280)
def test_one_two_and_four_workers_train_alike(small_run, run_file):
    alone, *together = (small_run(f"name=of-{n}") for n in (1, 2, 4))
    run_training(alone)
    for n, config in zip((2, 4), together, strict=True):
        train_together(run_file, n, f"plain name=of-{n}")
        assert_trained_alike(alone, config)


def test_accumulated_gradients_are_those_of_the_whole_batch(small_run):
    whole, parts = small_run("name=whole"), small_run("name=parts", "training.micro_batch=3")
    run_training(whole)
    run_training(parts)
    assert_trained_alike(whole, parts)


OUTER = "training.outer.every=5 training.learning_rate=0.01 training.validate_every=13"


@pytest.mark.slow
@pytest.mark.timeout(250)
def test_two_workers_with_every_option(small_run, run_file):
    """One start of the processes for several short trainings, since imports take longest."""
    alone = small_run("name=alone", "training.learning_rate=0.01")
    run_training(alone)
    outputs = train_together(
        run_file,
        2,
        "plain name=both training.learning_rate=0.01",
        "plain name=parts training.learning_rate=0.01 training.micro_batch=3",
        "plain name=rounded training.learning_rate=0.01 training.gradients=bfloat16",
        f"plain name=unbroken {OUTER}",
        f"killed name=broken {OUTER}",
        f"again name=broken {OUTER}",
        "diverging name=diverged training.learning_rate=1e30 training.warmup=0 "
        "model.options.diffusion=false",
    )
    assert losses(small_run("name=both")) == pytest.approx(losses(alone), rel=1e-4)
    # Gradients that are accumulated are sent once, and add up to the same.
    assert losses(small_run("name=parts")) == pytest.approx(losses(alone), rel=1e-4)
    # Rounded to bfloat16 (8 bits) on their way they are a little different, and as good.
    rounded = losses(small_run("name=rounded"))
    assert rounded != pytest.approx(losses(alone), rel=1e-6)
    assert rounded == pytest.approx(losses(alone), rel=2e-2)
    # Workers that learn alone and meet every 5 steps come near; killed in the midst of a round
    # they go on bit for bit.
    unbroken, broken = small_run("name=unbroken"), small_run("name=broken")
    assert losses(unbroken)[-1] < losses(unbroken)[0]
    assert losses(unbroken)[-1] == pytest.approx(losses(alone)[-1], rel=0.15)
    assert_same(state(unbroken), state(broken))
    assert "worker.1" in state(unbroken)
    own = [state(unbroken)[f"worker.{rank}"] for rank in (0, 1)]
    assert not torch.equal(*own)  # moments are each worker's own
    # All end with what the first of them found to be wrong.
    for output in outputs:
        assert "At step 2 the loss 'mse' is inf" in output
    assert not losses(small_run("name=diverged"))
    assert not list(run_folder(small_run("name=diverged")).glob("step-*"))


class Killed(Exception):
    pass


@pytest.mark.slow
def test_one_worker_with_an_outer_optimiser_resumes_exactly_within_a_round(small_run):
    settings = OUTER.split()
    unbroken, broken = small_run("name=unbroken", *settings), small_run("name=broken", *settings)
    run_training(unbroken)

    def killing(metrics):
        raise Killed

    with pytest.raises(Killed):
        run_training(broken, report=killing)
    run_training(broken, resume_from=checkpoint.latest_checkpoint(run_folder(broken)))
    assert_same(state(unbroken), state(broken))


@dataclass(frozen=True)
class Others(Workers):
    """One of two workers, beside another whose way is known."""

    way: float = 0.0

    def mean(self, values, *, precision=torch.float32):
        return (values + self.way) / 2


def test_the_outer_optimiser_is_nesterovs_on_the_mean_way():
    [weight] = parameters = [torch.nn.Parameter(torch.tensor([1.0]))]
    workers = Others(rank=0, world=2, device=torch.device("cpu"), way=0.4)
    config = OuterConfig(learning_rate=0.5, momentum=0.9)
    outer = OuterOptimiser(parameters, config, workers)
    sgd_weight = torch.nn.Parameter(torch.tensor([1.0]))
    sgd = torch.optim.SGD([sgd_weight], lr=0.5, momentum=0.9, nesterov=True)
    for own_way in (0.2, 0.3, -0.1):
        weight.data -= own_way  # local steps of this worker
        outer.meet()
        sgd_weight.grad = torch.tensor([(own_way + 0.4) / 2])
        sgd.step()
        torch.testing.assert_close(weight, sgd_weight)


@pytest.mark.parametrize(
    ("every", "batches", "meetings"),
    [(10, 22, [8, 16, 22]), (100, 22, [22]), (1, 3, [1, 2, 3]), (11, 22, [11, 22])],
)
def test_meetings_divide_an_epoch_evenly(every, batches, meetings):
    outer = OuterOptimiser([torch.nn.Parameter(torch.ones(1))], OuterConfig(every=every), ONE)
    assert [b for b in range(1, batches + 1) if outer.is_due(b, batches)] == meetings


@pytest.mark.slow
def test_a_run_may_go_on_with_an_outer_optimiser_and_without(small_run):
    first = small_run("training.epochs=1")
    run_training(first)
    for settings in (["training.outer.every=5"], []):
        latest = checkpoint.latest_checkpoint(run_folder(first))
        epochs = checkpoint.read_standing(latest).position.epoch + 1
        run_training(small_run(f"training.epochs={epochs}", *settings), resume_from=latest)
    assert len(losses(first)) == 3
