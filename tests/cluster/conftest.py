"""Fixtures of the tests on several hosts: the hosts, and a run that is submitted to them."""

import os
import time
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from climlstm import runs
from climlstm.config import load_config
from climlstm.training.progress import JOURNAL, read_journal
from climlstm.training.storage import run_folder
from tests.cluster.hosts import LOCAL_NETWORK, Cluster, made_cluster


@pytest.fixture(scope="module")
def local_network(tmp_path_factory) -> Iterator[Cluster]:
    """Two hosts of one local network; see `cluster`."""
    with made_cluster(tmp_path_factory.mktemp("cluster"), LOCAL_NETWORK) as cluster:
        yield cluster


@pytest.fixture
def cluster(local_network) -> Iterator[Cluster]:
    """Two hosts with a CPU each, with the time-outs of our files; the first is the head, too."""
    local_network.complete()
    yield local_network
    for command in local_network.commands:
        command.end()
    local_network.commands.clear()


@pytest.fixture
def far_apart(tmp_path) -> Iterator[Cluster]:
    """Two hosts with Ray's own time-outs."""
    with made_cluster(tmp_path / "cluster", {}) as cluster:
        cluster.complete()
        yield cluster


@pytest.fixture
def empty_cluster(tmp_path) -> Iterator[Cluster]:
    """A switch without hosts."""
    with made_cluster(tmp_path / "cluster", {}) as cluster:
        yield cluster


@pytest.fixture
def records() -> Callable:
    """The journal of a run, or of one event."""

    def read(config, event: str | None = None) -> list[dict]:
        journal = read_journal(run_folder(config) / JOURNAL)
        return [r for r in journal if event in (None, r["event"])]

    return read


BRAKE = """
import os, time
from dataclasses import dataclass

import torch.distributed as dist

from climlstm.model.losses import MSE


@dataclass(frozen=True)
class Braked(MSE):
    while_exists: str = ""
    seconds: float = 0.4
    slow_rank: int = -1

    def __call__(self, prediction, target, *, weight, channels):
        if os.path.exists(self.while_exists):
            slow = dist.is_initialized() and dist.get_rank() == self.slow_rank
            time.sleep(self.seconds * (4 if slow else 1))
        return super().__call__(prediction, target, weight=weight, channels=channels)
"""


@dataclass
class Brake:
    """A loss that takes its time while a file exists, so that tests need not hurry; a plugin."""

    wheel: Path
    file: Path

    def settings(self, **options: object) -> list[str]:
        """Overrides of a run file that make it the run's loss."""
        given = {"while_exists": str(self.file), **options}
        listed = ", ".join(f"{key}: {value}" for key, value in given.items())
        return ["training.loss.name=braked", f"training.loss.options={{{listed}}}"]

    def release(self) -> None:
        self.file.unlink(missing_ok=True)


@pytest.fixture
def brake(tmp_path) -> Brake:
    """On from the beginning."""
    wheel, file = tmp_path / "braked-1.0-py3-none-any.whl", tmp_path / "brake"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("braked.py", BRAKE)
        about = "Metadata-Version: 2.1\nName: braked\nVersion: 1.0\n"
        archive.writestr("braked-1.0.dist-info/METADATA", about)
        archive.writestr(
            "braked-1.0.dist-info/entry_points.txt", "[climlstm.losses]\nbraked = braked:Braked\n"
        )
        archive.writestr("braked-1.0.dist-info/RECORD", "")
        archive.extractall(tmp_path / "plugins")
    file.touch()
    return Brake(wheel, file)


EPOCHS = ["training.epochs=6", "training.validate_every=6", "cluster.max_failures=3"]
"""132 steps, a checkpoint every six of them."""


def losses(records):
    return {r["step"]: r["valid_loss"] for r in records if r["event"] == "valid"}


@pytest.fixture(scope="session")
def undisturbed(write_run, tmp_path_factory):
    """Validation losses of the run in one process."""
    config = load_config(write_run(tmp_path_factory.mktemp("undisturbed")), EPOCHS)
    runs.train(config, under_ray=False)
    return losses(read_journal(run_folder(config) / JOURNAL))


class Submitted:
    """A run that is submitted and brakes, and what its journal says."""

    def __init__(self, cluster, run_file, brake, records, *overrides, **options):
        settings = [*EPOCHS, *brake.settings(**options), *overrides]
        arguments = [argument for setting in settings for argument in ("--set", setting)]
        # The plugin is not installed here: submit finds it beside itself, and ships its wheel.
        path = os.pathsep.join(
            [str(brake.wheel.parent / "plugins"), os.environ.get("PYTHONPATH", "")]
        )
        self.config = load_config(run_file, [*EPOCHS, *overrides])
        self.cluster, self.brake, self.read = cluster, brake, records
        self.command = cluster.climlstm(
            "submit", run_file, "--ship", brake.wheel, *arguments, PYTHONPATH=path
        )

    def records(self, event=None):
        return self.read(self.config, event)

    def wait_for(self, condition, what, seconds=400):
        return self.cluster.wait_for(condition, seconds=seconds, what=what)

    def kept(self):
        """Step of the last checkpoint."""
        names = sorted(path.name for path in run_folder(self.config).glob("step-*"))
        return int(names[-1].removeprefix("step-")) if names else 0

    def wait_for_checkpoint(self, after=0):
        """Its step, which is later than `after`."""
        self.wait_for(lambda: self.kept() > after, f"a checkpoint after step {after}")
        return self.kept()

    def wait_for_start(self, since, workers=None):
        """The record with which training goes on after a time, with so many workers."""

        def starts():
            return [
                r
                for r in self.records("start")
                if r["time"] > since and workers in (None, r["workers"])
            ]

        self.wait_for(starts, f"a training that goes on, on {workers or 'some'} workers")
        return starts()[0]

    def go_on_after(self, harm, workers=None):
        """Do harm; returns the record with which training goes on, and after how many seconds."""
        kept = self.wait_for_checkpoint(after=6)
        harm()
        since = time.time()
        start = self.wait_for_start(since, workers)
        assert start["step"] >= kept, "it went on from an older checkpoint than the last"
        return start, start["time"] - since

    def finish(self, undisturbed):
        """Let it run to its end, whose losses are as they should be. Returns the output."""
        self.brake.release()
        output = self.command.finish(600)
        self.check(undisturbed)
        return output

    def check(self, undisturbed):
        """Its losses, up to the last step, are those of a run that nothing happened to."""
        found = losses(self.records())
        assert found == pytest.approx({step: undisturbed[step] for step in found}, rel=1e-4)
        assert max(found) == 132


@pytest.fixture
def submit(run_file, brake, records):
    """Submits the run, braked, to a cluster, with overrides and options of the brake."""
    return lambda cluster, *overrides, **options: Submitted(
        cluster, run_file, brake, records, *overrides, **options
    )
