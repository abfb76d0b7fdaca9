"""What does a training step cost on ERA5's own grid of 0.25 degrees, by the size of patches?

One sample of 4 channels and one forcing on 721 × 1440 cells, rows on both poles; two known states,
`--horizon` steps ahead (default 2), with the gates computed again (recompute). Prints the network's
parameters, seconds of a step (forward and backward, the median of `--rounds`) and the peak of
memory above what the process had before. Each case runs in a process of its own; one that does not
fit into `--limit` GiB is stopped. With `--largest`, the widest layers (hidden channels, multiples
of 16) that train below that limit are searched for each patch.

    python benchmarks/fine_grid.py [--patch 1 2 4 8] [--hidden 64] [--horizon 2] [--rounds 3]
        [--limit 24] [--largest] [--device cuda] [--json FILE]
"""

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import torch

from climlstm.model.convlstm import ConvLSTM
from climlstm.model.geometry import Geometry

ERA5 = Geometry(721, 1440, True, True, True, pole_row=True, sign=(1, 1, -1, -1))
CHANNELS, HISTORY = 4, 2


def one_case(patch: int, hidden: int, horizon: int, rounds: int, limit: float, device: str) -> None:
    """Print seconds, memory and parameters of a training step as JSON."""
    if device == "cpu":
        space = int(limit * 2**30) + resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        resource.setrlimit(resource.RLIMIT_DATA, (space, space))
    else:
        torch.cuda.set_per_process_memory_fraction(
            min(1.0, limit * 2**30 / torch.cuda.get_device_properties(0).total_memory)
        )
    precision = torch.bfloat16 if device == "cuda" else torch.float32
    options = {"hidden": (hidden,), "patch": patch, "recompute": True}
    network = ConvLSTM(
        CHANNELS, 1, 0, history=HISTORY, geometry=ERA5, precision=precision, **options
    ).to(device)
    history = torch.randn(1, HISTORY, CHANNELS, 721, 1440, device=device)
    forcing = torch.randn(1, HISTORY - 1 + horizon, 1, 721, 1440, device=device)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    seconds = []
    for _ in range(rounds):
        begun = time.perf_counter()
        loss = sum((state**2).mean() for state in network.steps(history, forcing))
        loss.backward()  # type: ignore[union-attr]
        if device == "cuda":
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - begun)
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    peak = torch.cuda.max_memory_allocated() if device == "cuda" else after - before
    parameters = sum(weights.numel() for weights in network.parameters())
    print(json.dumps({"parameters": parameters, "seconds": statistics.median(seconds),
                      "gib": peak / 2**30}))  # fmt: skip


def measure(patch: int, hidden: int, options: argparse.Namespace) -> dict[str, Any] | None:
    """The figures of a case from a process of its own; None where memory did not suffice."""
    numbers = (patch, hidden, options.horizon, options.rounds, options.limit)
    command = [sys.executable, __file__, "--case", *map(str, numbers), options.device]
    ran = subprocess.run(command, capture_output=True, text=True)
    if ran.returncode:
        out_of_memory = "memory" in ran.stderr.lower() or ran.returncode < 0
        if not out_of_memory:
            sys.exit(ran.stderr)
        return None
    return {"patch": patch, "hidden": hidden} | json.loads(ran.stdout)


def largest(patch: int, options: argparse.Namespace) -> dict[str, Any] | None:
    """The widest layers below the limit, by bisection of multiples of 16."""
    best, low, high = None, 0, 64
    while high - low > 1:
        middle = (low + high) // 2
        found = measure(patch, 16 * middle, options)
        best, low, high = (found, middle, high) if found else (best, low, middle)
    return best


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--patch", type=int, nargs="+", default=[8, 4, 2, 1])
    parser.add_argument("--hidden", type=int, default=64)
    parser.add_argument("--horizon", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--limit", type=float, default=24.0, help="GiB")
    parser.add_argument("--largest", action="store_true")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--case", nargs=6, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.case:
        *whole, limit, device = options.case
        patch, hidden, horizon, rounds = map(int, whole)
        return one_case(patch, hidden, horizon, rounds, float(limit), device)
    rows = []
    print(f"0.25°, 721 × 1440, horizon {options.horizon}, {options.device}, recompute")
    print("patch  hidden  parameters   s/step     GiB")
    for patch in options.patch:
        row = largest(patch, options) if options.largest else None
        row = row or measure(patch, options.hidden, options)
        if row is None:
            print(f"{patch:5} {options.hidden:7}   more than {options.limit:g} GiB", flush=True)
            continue
        rows.append(row)
        print("{patch:5} {hidden:7} {parameters:11,} {seconds:8.2f} {gib:7.2f}".format(**row),
              flush=True)  # fmt: skip
    if options.json:
        options.json.write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
