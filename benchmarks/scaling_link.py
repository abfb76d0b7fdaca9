"""What does a slow link between two workers cost, and do local steps make up for it?

Two network namespaces are joined by a link of limited rate and delay: packets pass through this
process, which holds them back (kernels often lack netem). On it, real gloo and the real loop:

- the time of an all-reduce against the formula of cluster/SCALING.md;
- training with gradients exchanged at each step (float32, bfloat16) and with local steps and an
  outer optimiser, as windows per second against two workers that exchange nothing;
- the validation loss of local steps against that of steps taken together.

    python benchmarks/scaling_link.py [--quick] [--rate 100] [--delay 20] [--json FILE]
    python benchmarks/scaling_link.py --paper

Needs root, and two cores for itself.
"""

import argparse
import ctypes
import fcntl
import heapq
import itertools
import json
import math
import os
import select
import statistics
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from climlstm.demo import CATALOG
from climlstm.simulation.simulate import simulate
from climlstm.training.progress import JOURNAL, read_journal

RUN = """
name: link
data:
  catalog: catalog.yaml
  source: atmosphere
  step: 6h
  state: [t850, msl, u10, v10, z500]
  forcing: [season]
  periods:
    train: [2001-01-01, 2001-10-31]
    valid: [2001-11-03, 2001-12-31]
    test: [2002-01-02, 2002-01-31]
model: {name: convlstm, history: 2, options: {hidden: [64], blocks: 0}}
training:
  {horizon: 2, ramp: 0, batch_size: 16, validation_windows: 64, precision: float32, threads: 1,
   learning_rate: 3.0e-3, keep: 1}
"""
ADDRESSES = ("10.213.99.1", "10.213.99.2")
MTU = 9000
"""Bytes; large, so that the relay has few packets to touch."""
OUTER = ["training.outer.every=20", "training.gradients=bfloat16"]
SIZES = (100_000, 400_000, 1_800_000, 7_200_000)

PAPER_FLOPS = 0.35 * 400e12
"""What a current GPU is taken to do of convolutions in bfloat16, per second."""
PAPER_MODELS = {
    1_000_000: (32, 64, 8, 4),
    3_000_000: (64, 128, 12, 4),
    10_000_000: (64, 128, 12, 4),
}
"""Parameters, and H, W, time steps, windows of a worker: each weight is used at each of them,
twice (multiply, add) forward and four times backward."""
PAPER_FABRICS = {
    "NVLink": (300e9, 3e-6),
    "InfiniBand 400 Gb/s": (40e9, 5e-6),
    "Ethernet 25 Gb/s": (2.8e9, 30e-6),
    "Ethernet 10 Gb/s": (1.1e9, 30e-6),
    "1 Gb/s, 20 ms": (0.12e9, 20e-3),
    "100 Mb/s, 20 ms": (0.012e9, 20e-3),
}
"""Usable bytes per second of one worker, and seconds of a hop."""


class Relay(threading.Thread):
    """A link between two namespaces: packets are read here, held back, and handed on."""

    def __init__(self, devices: tuple[int, int], *, rate: float, delay_s: float) -> None:
        """devices: of two tunnels; rate: bits per second."""
        super().__init__(name="relay", daemon=True)
        self.devices, self.rate, self.delay_s = devices, rate, delay_s
        self.ended = threading.Event()

    def run(self) -> None:
        waiting: list[tuple[float, int, int, bytes]] = []
        free = dict.fromkeys(self.devices, 0.0)  # when a direction has sent what it was given
        other = dict(zip(self.devices, reversed(self.devices), strict=True))
        number = 0
        while not self.ended.is_set():
            pause = min(max(waiting[0][0] - time.monotonic(), 0), 0.2) if waiting else 0.2
            readable, _, _ = select.select(self.devices, [], [], pause)
            for device in readable:
                packet = os.read(device, 65536)
                sent = max(time.monotonic(), free[device]) + 8 * len(packet) / self.rate
                free[device] = sent
                number += 1
                heapq.heappush(waiting, (sent + self.delay_s, number, other[device], packet))
            now = time.monotonic()
            while waiting and waiting[0][0] <= now:
                _, _, device, packet = heapq.heappop(waiting)
                os.write(device, packet)


@contextmanager
def link(*, rate: float, delay_s: float) -> Iterator[tuple[str, str]]:
    """Names of two namespaces that reach each other at ADDRESSES; delay_s: in one direction."""
    names = tuple(f"climlink{os.getpid()}{side}" for side in "ab")
    with ExitStack() as stack:
        devices = []
        for name, address in zip(names, ADDRESSES, strict=True):
            subprocess.run(["ip", "netns", "add", name], check=True)
            stack.callback(subprocess.run, ["ip", "netns", "delete", name], check=False)
            devices.append(_tunnel(name))
            stack.callback(os.close, devices[-1])
            for command in (
                ["link", "set", "lo", "up"],
                ["address", "add", f"{address}/24", "dev", "link0"],
                ["link", "set", "link0", "mtu", str(MTU), "txqueuelen", "10000", "up"],
            ):
                subprocess.run(["ip", "-n", name, *command], check=True)
        relay = Relay((devices[0], devices[1]), rate=rate, delay_s=delay_s)
        relay.start()
        stack.callback(relay.join)
        stack.callback(relay.ended.set)
        yield names


def _tunnel(namespace: str) -> int:
    """A tunnel device link0 in a namespace; what is sent into it can be read here."""
    libc = ctypes.CDLL(None, use_errno=True)
    made: list[int] = []

    def enter_and_open() -> None:  # a namespace is entered by one thread, which ends with it
        with open(f"/var/run/netns/{namespace}") as there:
            if libc.setns(there.fileno(), 0):
                raise OSError(ctypes.get_errno(), f"namespace {namespace}")
        device = os.open("/dev/net/tun", os.O_RDWR)
        tun, no_information, set_interface = 0x0001, 0x1000, 0x400454CA
        fcntl.ioctl(device, set_interface, struct.pack("16sH22x", b"link0", tun | no_information))
        made.append(device)

    thread = threading.Thread(target=enter_and_open)
    thread.start()
    thread.join()
    return made[0]


WORKER = """
import json, sys, time
import torch
import torch.distributed as dist
from climlstm.config import load_config
from climlstm.training.loop import run_training

torch.set_num_threads(1)
what, *arguments = sys.argv[1:]
if what != "alone":
    dist.init_process_group("gloo")
if what == "all-reduce":
    found = {}
    for size in map(int, arguments):
        values = torch.zeros(size // 4)
        times = []
        for _ in range(8):
            dist.barrier()
            begun = time.perf_counter()
            dist.all_reduce(values)
            times.append(time.perf_counter() - begun)
        found[size] = sorted(times[2:])[3]
    if dist.get_rank() == 0:
        print("found", json.dumps(found))
else:
    path, *runs = arguments
    for run in runs:
        run_training(load_config(path, run.split(" ")))
if what != "alone":
    dist.destroy_process_group()
"""


def both(namespaces: tuple[str, str] | None, *arguments: str) -> str:
    """Run the two workers, joined by the link or by this host's loopback; output of the first."""
    workers = []
    for rank in (0, 1):
        inside = ["ip", "netns", "exec", namespaces[rank]] if namespaces else []
        workers.append(
            subprocess.Popen(
                [*inside, sys.executable, "-c", WORKER, *arguments],
                env=os.environ
                | {
                    "OMP_NUM_THREADS": "1",
                    "OMP_WAIT_POLICY": "passive",
                    "MASTER_ADDR": ADDRESSES[0] if namespaces else "127.0.0.1",
                    "MASTER_PORT": "29571",
                    "GLOO_SOCKET_IFNAME": "link0" if namespaces else "lo",
                    **({} if arguments[0] == "alone" else {"WORLD_SIZE": "2", "RANK": str(rank)}),
                },
                stdout=subprocess.PIPE,
                text=True,
            )
        )
        if arguments[0] == "alone":  # names of the two runs differ
            arguments = tuple(a.replace("name=alone0", "name=alone1") for a in arguments)
    try:
        outputs = [worker.communicate()[0] for worker in workers]
    finally:
        for worker in workers:
            worker.kill()
    if any(worker.returncode for worker in workers):
        raise RuntimeError(f"the workers ended with {[w.returncode for w in workers]}")
    return outputs[0]


def all_reduce_s(size: float, workers: int, speed: float, hop_s: float) -> float:
    """Seconds by a ring (Patarasuk & Yuan 2009, doi:10.1016/j.jpdc.2008.09.002) or by two trees
    (Sanders et al. 2009, doi:10.1016/j.parco.2009.09.001), whichever is faster.

    size: bytes; speed: bytes per second of one worker's link; hop_s: delay in one direction.
    """
    ring = 2 * (workers - 1) / workers * size / speed + 2 * (workers - 1) * hop_s
    trees = 2 * size / speed + 2 * math.log2(workers) * hop_s
    return min(ring, trees)


@dataclass(frozen=True)
class Run:
    """What the journal of a training says."""

    windows_per_s: float
    valid_loss: float
    seconds: float

    @classmethod
    def of(cls, folder: Path, name: str) -> "Run":
        records = read_journal(folder / "runs" / name / JOURNAL)
        speeds = [r["samples_per_s"] for r in records if r["event"] == "train"]
        losses = [r["valid_loss"] for r in records if r["event"] == "valid"]
        # The first record has the slow first steps in it.
        end = records[-1]
        return cls(statistics.median(speeds[1:] or speeds), losses[-1], end["seconds"])


def measure_speeds(folder: Path, *, rate: float, delay_s: float) -> list[dict]:
    """Rows on time: of all-reduce, and of steps with two windows a worker, which is little work."""
    path = str(folder / "run.yaml")
    short = ["data.periods.train=[2001-01-01,2001-03-01]", "training.validation_windows=8"]

    def run(name: str, *overrides: str, batch: int = 4) -> str:
        settings = [f"training.batch_size={batch}", "training.epochs=2", *short, *overrides]
        return " ".join([f"name={name}", *settings])

    kinds = {
        "float32": ("gradients in float32", []),
        "bfloat16": ("gradients in bfloat16", ["training.gradients=bfloat16"]),
        "local": ("local steps", OUTER),
    }
    both(None, "alone", path, run("alone0", batch=2))
    with link(rate=rate, delay_s=delay_s) as namespaces:
        output = both(namespaces, "all-reduce", *map(str, SIZES))
        runs = [run(name, *overrides) for name, (_, overrides) in kinds.items()]
        both(namespaces, "together", path, *runs)
    found = json.loads(next(x for x in output.splitlines() if x.startswith("found"))[6:])
    alone = sum(Run.of(folder, f"alone{n}").windows_per_s for n in (0, 1))
    table = [
        _row("all-reduce", f"{size / 1e6:g} MB", found[str(size)], "s", "formula", expected)
        for size in SIZES
        for expected in [all_reduce_s(size, 2, rate / 8, delay_s)]
    ]
    return table + [
        _row("efficiency", title, Run.of(folder, n).windows_per_s, "windows/s", "alone", alone)
        for n, (title, _) in kinds.items()
    ]


def measure_losses(folder: Path, *, epochs: int) -> list[dict]:
    """Rows on quality: the link does not change what is learned, so there is none here."""
    runs = {"together": [], "local": OUTER, "momentum": [*OUTER, "training.outer.momentum=0.9"]}
    settings = [
        " ".join([f"name=long-{name}", f"training.epochs={epochs}", *overrides])
        for name, overrides in runs.items()
    ]
    both(None, "together", str(folder / "run.yaml"), *settings)
    losses = {name: Run.of(folder, f"long-{name}").valid_loss for name in runs}
    return [
        _row("validation loss", title, losses[name], "", "together", losses["together"])
        for name, title in (("local", "local steps"), ("momentum", "local steps, momentum 0.9"))
    ]


def paper() -> list[dict]:
    """Rows of the cost model: seconds of a step's all-reduce, and efficiencies."""
    rows = []
    for parameters, shape in PAPER_MODELS.items():
        compute_s = 6 * parameters * math.prod(shape) / PAPER_FLOPS
        for fabric, (speed, hop_s) in PAPER_FABRICS.items():
            for workers in (8, 64, 1024):
                full, half = (
                    all_reduce_s(width * parameters, workers, speed, hop_s) for width in (4, 2)
                )
                rows.append(
                    {
                        "parameters": parameters,
                        "compute_s": compute_s,
                        "fabric": fabric,
                        "workers": workers,
                        "all_reduce_s": full,
                        "each step": compute_s / (compute_s + full),
                        "bfloat16": compute_s / (compute_s + half),
                        "bfloat16, 8 times the batch": 8 * compute_s / (8 * compute_s + half),
                        "outer, every 100 steps": 100 * compute_s / (100 * compute_s + half),
                    }
                )
    return rows


def print_paper() -> None:
    for parameters, rows in itertools.groupby(paper(), key=lambda row: row["parameters"]):
        of_model = list(rows)
        print(f"{parameters:,} parameters, {1e3 * of_model[0]['compute_s']:.3g} ms of computing")
        for fabric, cells in itertools.groupby(of_model, key=lambda row: row["fabric"]):
            texts = [
                f"{1e3 * c['all_reduce_s']:.3g} ms "
                + "/".join(f"{value:.2f}" for value in list(c.values())[5:])
                for c in cells
            ]
            print(f"| {fabric} | {' | '.join(texts)} |")


def _row(case: str, subject: str, value: float, unit: str, against: str, other: float) -> dict:
    return {
        "case": case,
        "subject": subject,
        "value": value,
        "unit": unit,
        "against": against,
        "ratio": value / other,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="speeds, not losses")
    parser.add_argument("--rate", type=float, default=100.0, help="Mb/s")
    parser.add_argument("--delay", type=float, default=20.0, help="ms in one direction")
    parser.add_argument("--json", type=Path, help="write the rows here, too")
    parser.add_argument("--paper", action="store_true", help="print the cost model only")
    arguments = parser.parse_args()
    if arguments.paper:
        return print_paper()
    if os.geteuid() != 0:
        parser.exit(1, "Network namespaces need root.\n")
    with tempfile.TemporaryDirectory(prefix="climlstm-link-") as name:
        folder = Path(name)
        simulate(folder / "atmosphere.zarr", years=400 / 365.25, spin_up_days=30, seed=1)
        (folder / "catalog.yaml").write_text(CATALOG)
        (folder / "run.yaml").write_text(RUN)
        table = measure_speeds(folder, rate=arguments.rate * 1e6, delay_s=arguments.delay / 1e3)
        if not arguments.quick:
            table += measure_losses(folder, epochs=6)
    for row in table:
        ratio = f"{row['ratio']:6.2f} × {row['against']}"
        print(f"{row['case']:18} {row['subject']:24} {row['value']:9.4f} {row['unit']:9} {ratio}")
    if arguments.json:
        arguments.json.write_text(json.dumps(table, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
