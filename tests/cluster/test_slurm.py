"""The Slurm script with stand-ins for Slurm's commands, and Ray itself, on two hosts."""

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

pytest.importorskip("ray", reason="needs climlstm[ray]")

from climlstm import runs
from climlstm.config import load_config
from climlstm.training.storage import run_folder

SCRIPT = Path(__file__).parents[2] / "cluster" / "slurm.sh"
JOB = 4711

# Like the real one, srun starts a command on another host, passes a signal on, and ends with it.
STUBS = {
    "scontrol": (
        'case $1 in show) cat "$STUBS/hosts";; *) echo "scontrol $*" >> "$STUBS/log";; esac'
    ),
    "srun": (
        "for a; do case $a in --nodelist=*) host=${a#*=};; esac; done\n"
        "while [[ $1 == --* ]]; do shift; done\n"
        'nsenter --target="$(cat "$STUBS/$host")" --net --mount --ipc --uts "$@" &\n'
        "child=$!\n"
        "trap 'kill -TERM \"$child\"' TERM\n"
        'wait "$child"; wait "$child" 2>/dev/null'
    ),
}


class Slurm:
    """An allocation of two hosts, which share processes with this machine but nothing else."""

    def __init__(self, cluster, folder):
        self.cluster, self.folder = cluster, folder
        self.hosts = []
        for name, body in STUBS.items():
            (folder / name).write_text(f"#!/bin/bash\n{body}\n")
            (folder / name).chmod(0o755)
        self.log = folder / "log"
        self.log.touch()
        names = [cluster.plug_in(number) for number in (1, 2)]
        (folder / "hosts").write_text("\n".join(names) + "\n")
        addresses = "".join(f"10.213.77.{n} {name}\n" for n, name in enumerate(names, start=1))
        (folder / "etc-hosts").write_text(f"127.0.0.1 localhost\n{addresses}")
        for name in names:
            (folder / f"ray-{name}").mkdir()
            script = (
                f"hostname {name} && mount --bind {folder}/etc-hosts /etc/hosts"
                f" && mkdir -p /tmp/ray-{JOB} && mount --bind {folder}/ray-{name} /tmp/ray-{JOB}"
                f" && mount -t tmpfs tmpfs /dev/shm && exec sleep infinity"
            )
            host = subprocess.Popen(
                ["ip", "netns", "exec", name, "unshare", "--mount", "--ipc", "--uts",
                 "bash", "-c", script],
            )  # fmt: skip
            self.hosts.append(host)
            (folder / name).write_text(str(host.pid))
        cluster.wait_for(
            lambda: all(os.readlink(f"/proc/{h.pid}/exe").endswith("sleep") for h in self.hosts),
            seconds=30,
            what="two hosts",
        )

    def batch(self, *arguments):
        """Start the script as Slurm does, on the first host."""
        environment = os.environ | self.cluster.environment
        environment |= {
            "PATH": f"{self.folder}:{environment['PATH']}",
            "STUBS": str(self.folder),
            "SLURM_JOB_ID": str(JOB),
            "SLURM_JOB_NODELIST": "n[1-2]",
            "SLURM_CPUS_PER_TASK": "1",
        }
        return subprocess.Popen(
            ["nsenter", f"--target={self.hosts[0].pid}", "--net", "--mount", "--ipc", "--uts",
             "bash", SCRIPT, *map(str, arguments)],
            env=environment,
        )  # fmt: skip

    def processes(self):
        """Whatever runs on the hosts, besides the hosts themselves."""
        networks = {os.readlink(f"/proc/{host.pid}/ns/net") for host in self.hosts}
        found = []
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                if os.readlink(folder / "ns" / "net") in networks:
                    found.append(int(folder.name))
            except OSError:
                continue  # it has ended just now
        return [pid for pid in found if pid not in [host.pid for host in self.hosts]]

    def close(self):
        for pid in self.processes():
            os.kill(pid, signal.SIGKILL)
        for host in self.hosts:
            host.kill()
            host.wait()
        Path(f"/tmp/ray-{JOB}").rmdir()


@pytest.fixture
def slurm(empty_cluster, tmp_path):
    folder = tmp_path / "slurm"
    folder.mkdir()
    slurm = Slurm(empty_cluster, folder)
    yield slurm
    slurm.close()


def losses(records):
    return {r["step"]: r["valid_loss"] for r in records if r["event"] == "valid"}


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_run_goes_on_after_the_time_of_its_job_is_over_and_leaves_nothing(
    slurm, run_file, brake, records, monkeypatch
):
    settings = ["training.epochs=2", "training.validate_every=11", "cluster.workers=2"]
    alone = load_config(run_file, [*settings, "name=alone"])
    runs.train(alone, under_ray=False)
    config = load_config(run_file, settings)
    path = f"{brake.wheel.parent / 'plugins'}:{os.environ.get('PYTHONPATH', '')}"
    monkeypatch.setenv("PYTHONPATH", path)
    arguments = [run_file]
    for setting in [*settings, *brake.settings(seconds=1.0)]:
        arguments += ["--set", setting]

    first = slurm.batch(*arguments)
    slurm.cluster.wait_for(
        lambda: list(run_folder(config).glob("step-*")) or first.poll() is not None,
        seconds=240,
        what="a checkpoint",
    )
    assert first.poll() is None
    (start,) = records(config, "start")
    assert start["workers"] == 2
    first.send_signal(signal.SIGTERM)  # as Slurm does 120 s before the end
    assert first.wait(60) == 0
    assert f"scontrol requeue {JOB}" in slurm.log.read_text()
    slurm.cluster.wait_for(lambda: not slurm.processes(), seconds=60, what="empty hosts")

    since = time.time()
    brake.release()
    assert slurm.batch(*arguments).wait(240) == 0
    again = next(r for r in records(config, "start") if r["time"] > since)
    assert again["step"] >= 11
    assert losses(records(config)) == pytest.approx(losses(records(alone)), rel=1e-4)
    slurm.cluster.wait_for(lambda: not slurm.processes(), seconds=60, what="empty hosts")
