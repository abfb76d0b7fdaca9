"""How fast and how lean is one training step of a ConvLSTM? Ours beside those that people use.

Two layers of 64 hidden channels, kernel 3, over 12 steps of 4 channels, forward and backward: our
layers; the PyTorch cell that most repositories have, alone and under torch.compile; Keras 3
ConvLSTM2D on torch; and as the floor the convolutions alone, in the layout that serves them best.
All take turns in one run and give medians; memory is the peak above the start, each in a process
of its own.

    python benchmarks/convlstm.py [--quick] [--threads N] [--cpu-time] [--json FILE]
"""

import argparse
import importlib.util
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from climlstm.model.convlstm import ConvLSTMLayer
from climlstm.model.padding import Geometry, with_halo

STEPS, INPUTS, HIDDEN, LAYERS, KERNEL = 12, 4, 64, 2, 3
OURS, PLAIN, FLOOR = "climlstm", "plain cell", "convolutions alone"
RECOMPUTED, COMPILED, KERAS = "climlstm, recompute", "plain cell, torch.compile", "Keras 3"
PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16}
Step = Callable[[], object]


class Ours(nn.Module):
    """Our layers, from (B, T, C, H, W) to hidden states with their halo."""

    def __init__(self, grid: tuple[int, int], dtype: torch.dtype, *, recompute: bool) -> None:
        super().__init__()
        self.dtype = dtype
        self.geometry = Geometry(*grid)
        self.layers = nn.ModuleList(
            ConvLSTMLayer(
                inputs, HIDDEN, kernel=KERNEL, geometry=self.geometry, recompute=recompute
            )
            for inputs in (INPUTS, *(HIDDEN,) * (LAYERS - 1))
        )

    def forward(self, x: Tensor) -> Tensor:
        y = with_halo(x.transpose(0, 1).to(self.dtype), KERNEL // 2, self.geometry)
        for layer in self.layers:
            y, _ = layer(y, None)
        return y


class PlainCell(nn.Module):
    """One convolution of input and hidden state side by side, then the gates one by one."""

    def __init__(self, inputs: int, hidden: int) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(inputs + hidden, 4 * hidden, KERNEL, padding=KERNEL // 2)

    def forward(self, x: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
        i, f, o, g = self.convolution(torch.cat([x, h], dim=1)).chunk(4, dim=1)
        c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
        return torch.sigmoid(o) * torch.tanh(c), c


class Plain(nn.Module):
    """Plain cells, layer by layer and step by step."""

    def __init__(self, *, compiled: bool) -> None:
        super().__init__()
        inputs = (INPUTS, *(HIDDEN,) * (LAYERS - 1))
        self.cells = nn.ModuleList(PlainCell(number, HIDDEN) for number in inputs)
        if compiled:
            for cell in self.cells:
                cell.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
                cell.compile(dynamic=False)

    def forward(self, x: Tensor) -> Tensor:
        for cell in self.cells:
            h = c = x.new_zeros(x.shape[0], HIDDEN, *x.shape[3:])
            states = []
            for step in x.unbind(1):
                h, c = cell(step, h, c)
                states.append(h)
            x = torch.stack(states, dim=1)
        return x


def train(network: nn.Module, x: Tensor, dtype: torch.dtype, *, autocast: bool) -> Step:
    """One forward and backward pass, from a gradient that costs nothing to make."""

    def step() -> None:
        with torch.autocast("cpu", dtype, enabled=autocast and dtype == torch.bfloat16):
            y = network(x)
        network.zero_grad(set_to_none=True)
        y.backward(torch.full((), 1e-3, dtype=y.dtype).expand(y.shape))

    return step


def ours(grid: tuple[int, int], dtype: torch.dtype, batch: int, *, recompute: bool) -> Step:
    x = torch.randn(batch, STEPS, INPUTS, *grid)
    return train(Ours(grid, dtype, recompute=recompute), x, dtype, autocast=False)


def plain(grid: tuple[int, int], dtype: torch.dtype, batch: int, *, compiled: bool) -> Step:
    x = torch.randn(batch, STEPS, INPUTS, *grid)
    return train(Plain(compiled=compiled), x, dtype, autocast=True)


def keras_layers(grid: tuple[int, int], dtype: torch.dtype, batch: int) -> Step:
    """ConvLSTM2D with its time loop unrolled, channels first: its fastest setting here."""
    os.environ["KERAS_BACKEND"] = "torch"
    import keras

    policy = "mixed_bfloat16" if dtype == torch.bfloat16 else "float32"
    network = keras.Sequential(
        [
            keras.layers.ConvLSTM2D(
                HIDDEN,
                KERNEL,
                padding="same",
                data_format="channels_first",
                return_sequences=True,
                unroll=True,
                dtype=policy,
            )
            for _ in range(LAYERS)
        ]
    )
    x = torch.randn(batch, STEPS, INPUTS, *grid)
    network.build(x.shape)
    return train(network, x, dtype, autocast=False)


def convolutions(grid: tuple[int, int], dtype: torch.dtype, batch: int) -> Step:
    """All convolutions of a training step: forward, input and weight gradients.

    Of inputs for four steps in one call, of hidden states step by step but for the first.
    """
    rows, columns = (size + KERNEL - 1 for size in grid)

    def tensor(*shape: int) -> Tensor:
        return torch.randn(*shape).to(dtype).contiguous(memory_format=torch.channels_last)

    hidden = tensor(batch, HIDDEN, rows, columns)
    together = {n: tensor(4 * batch, n, rows, columns) for n in (INPUTS, HIDDEN)}
    weights = {n: tensor(4 * HIDDEN, n, KERNEL, KERNEL) for n in (INPUTS, HIDDEN)}
    z, z_together = (tensor(n * batch, 4 * HIDDEN, *grid) for n in (1, 4))

    def both(field: Tensor, weight: Tensor, grad: Tensor, *, of_field: bool) -> None:
        F.conv2d(field, weight)
        torch.ops.aten.convolution_backward(
            *(grad, field, weight, None, [1, 1], [0, 0], [1, 1], False, [0, 0], 1),
            [of_field, True, False],
        )

    def step() -> None:
        for layer in range(LAYERS):
            n = HIDDEN if layer else INPUTS
            for _ in range(STEPS // 4):
                both(together[n], weights[n], z_together, of_field=layer > 0)
            for _ in range(STEPS - 1):
                both(hidden, weights[HIDDEN], z, of_field=True)

    return step


def make(subject: str, grid: tuple[int, int], precision: str, batch: int) -> Step:
    """One training step of a subject, ready to run."""
    torch.manual_seed(0)
    dtype = PRECISIONS[precision]
    if subject in (OURS, RECOMPUTED):
        return ours(grid, dtype, batch, recompute=subject == RECOMPUTED)
    if subject in (PLAIN, COMPILED):
        return plain(grid, dtype, batch, compiled=subject == COMPILED)
    return (keras_layers if subject == KERAS else convolutions)(grid, dtype, batch)


def seconds(steps: dict[str, Step], rounds: int, clock: Callable[[], float]) -> dict[str, float]:
    """Median seconds of each, all taking turns; two rounds to warm up."""
    taken: dict[str, list[float]] = {name: [] for name in steps}
    for turn in range(rounds + 2):
        for name, step in steps.items():
            start = clock()
            step()
            if turn >= 2:
                taken[name].append(clock() - start)
    return {name: statistics.median(values) for name, values in taken.items()}


def peak_megabytes(subject: str, grid: tuple[int, int], precision: str, batch: int) -> float:
    """Peak memory of training steps above what the process had before, in a new process."""
    task = json.dumps([subject, grid, precision, batch])
    command = [sys.executable, __file__, "--measure-memory", task]
    result = subprocess.run(command, check=True, capture_output=True, text=True)
    return float(result.stdout.split()[-1])


def measure_memory(subject: str, grid: list[int], precision: str, batch: int) -> float:
    make(subject, (grid[0], grid[1]), precision, 1)()  # libraries and their scratch space loaded
    step = make(subject, (grid[0], grid[1]), precision, batch)
    before = status_kilobytes("VmRSS")
    for _ in range(2):
        step()
    return (status_kilobytes("VmHWM") - before) / 1024


def status_kilobytes(key: str) -> int:
    """Memory of this process as Linux counts it; unlike getrusage's, nothing of its parent's."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(key))


def report(case: str, values: dict[str, float], unit: str) -> list[dict[str, object]]:
    """Print a table, each line against the plain cell and against the floor."""
    print(f"\n{case}: {unit}")
    rows: list[dict[str, object]] = []
    for subject, value in sorted(values.items(), key=lambda item: item[1]):
        line = f"  {subject:27s} {value:10.3f}"
        for against in (PLAIN, FLOOR):
            if against in values and subject != against:
                ratio = value / values[against]
                line += f"   {ratio:6.2f} x {against}"
                rows.append(
                    dict(case=case, subject=subject, value=value, unit=unit)
                    | dict(against=against, ratio=ratio)
                )
        print(line, flush=True)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="within a minute, without compiling")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument(
        "--cpu-time", action="store_true", help="not wall clock: for busy machines, with 1 thread"
    )
    parser.add_argument("--json", type=Path)
    parser.add_argument("--measure-memory", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    if arguments.measure_memory:
        print(measure_memory(*json.loads(arguments.measure_memory)))
        return
    subjects = [OURS, RECOMPUTED, PLAIN, FLOOR]
    if importlib.util.find_spec("keras"):
        subjects.append(KERAS)
    else:
        print("Keras 3 is not installed and left out: pip install keras")
    if not arguments.quick:
        subjects.append(COMPILED)
    clock = time.process_time if arguments.cpu_time else time.perf_counter
    rows = []
    for grid, batch in [((32, 64), 4)] if arguments.quick else [((32, 64), 4), ((128, 256), 1)]:
        for precision in PRECISIONS:
            case = f"{grid[0]}x{grid[1]}, batch {batch}, {precision}"
            steps = {name: make(name, grid, precision, batch) for name in subjects}
            rounds = 3 if arguments.quick else 7
            rows += report(case, seconds(steps, rounds, clock), "s")
    memory_batch = 4 if arguments.quick else 16
    for precision in PRECISIONS:
        case = f"32x64, batch {memory_batch}, {precision}: peak above start"
        named = [name for name in subjects if name != FLOOR]
        peaks = {name: peak_megabytes(name, (32, 64), precision, memory_batch) for name in named}
        rows += report(case, peaks, "MiB")
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
