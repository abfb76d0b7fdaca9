"""How fast and how lean is one training step of a ConvLSTM? Ours beside those that people use.

Two layers of 64 hidden channels (128 on a GPU), kernel 3, over 12 steps of 4 channels, forward and
backward: our layers, also with the gates computed again; the PyTorch cell that most repositories
have, alone and under torch.compile; Keras 3 ConvLSTM2D on torch; and as the floor the convolutions
alone, in the layout that serves them best. All take turns in one run and give medians; memory is
the peak above the start, each in a process of its own. On a GPU the grid has 1 degree, and the
largest batch of the 0.25 degree grid that fits with recomputation is searched.

    python benchmarks/convlstm.py [--quick] [--threads N] [--cpu-time] [--device cuda]
        [--grid 128x256] [--precision bfloat16] [--part time memory] [--rounds N] [--json FILE]
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
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from climlstm.model.convlstm import ConvLSTMLayer
from climlstm.model.geometry import Geometry
from climlstm.model.padding import with_halo

STEPS, INPUTS, LAYERS, KERNEL = 12, 4, 2, 3
OURS, PLAIN, FLOOR = "climlstm", "plain cell", "convolutions alone"
RECOMPUTED = "climlstm, recompute"
COMPILED, KERAS = "plain cell, torch.compile", "Keras 3"
PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16}
Step = Callable[[], object]


@dataclass(frozen=True)
class Case:
    """What is trained on: a grid, how many samples at once, hidden channels, where and how."""

    rows: int
    columns: int
    batch: int
    precision: str
    hidden: int = 64
    device: str = "cpu"

    def __str__(self) -> str:
        return f"{self.rows}x{self.columns}, batch {self.batch}, {self.precision}, {self.device}"

    @property
    def dtype(self) -> torch.dtype:
        return PRECISIONS[self.precision]

    def inputs(self) -> Tensor:
        """Input of a training step (B, T, C, H, W)."""
        return torch.randn(self.batch, STEPS, INPUTS, self.rows, self.columns, device=self.device)


class Ours(nn.Module):
    """Our layers, from (B, T, C, H, W) to hidden states with their halo."""

    def __init__(self, case: Case, *, recompute: bool) -> None:
        super().__init__()
        self.dtype = case.dtype
        self.geometry = Geometry(case.rows, case.columns)
        self.layers = nn.ModuleList(
            ConvLSTMLayer(
                inputs,
                case.hidden,
                kernel=KERNEL,
                geometry=self.geometry,
                recompute=recompute,
            )
            for inputs in (INPUTS, *(case.hidden,) * (LAYERS - 1))
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

    def __init__(self, hidden: int, *, compiled: bool) -> None:
        super().__init__()
        self.hidden = hidden
        inputs = (INPUTS, *(hidden,) * (LAYERS - 1))
        self.cells = nn.ModuleList(PlainCell(number, hidden) for number in inputs)
        if compiled:
            for cell in self.cells:
                cell.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
                cell.compile(dynamic=False)

    def forward(self, x: Tensor) -> Tensor:
        for cell in self.cells:
            h = c = x.new_zeros(x.shape[0], self.hidden, *x.shape[3:])
            states = []
            for step in x.unbind(1):
                h, c = cell(step, h, c)
                states.append(h)
            x = torch.stack(states, dim=1)
        return x


def train(network: nn.Module, case: Case, *, autocast: bool = False) -> Step:
    """One forward and backward pass, from a gradient that costs nothing to make."""
    network.to(case.device)
    x = case.inputs()
    enabled = autocast and case.dtype == torch.bfloat16

    def step() -> None:
        with torch.autocast(case.device, case.dtype, enabled=enabled):
            y = network(x)
        network.zero_grad(set_to_none=True)
        y.backward(torch.full((), 1e-3, dtype=y.dtype, device=y.device).expand(y.shape))

    return step


def keras_layers(case: Case) -> Step:
    """ConvLSTM2D with its time loop unrolled, channels first: its fastest setting here."""
    os.environ["KERAS_BACKEND"] = "torch"
    import keras

    policy = "mixed_bfloat16" if case.dtype == torch.bfloat16 else "float32"
    network = keras.Sequential(
        [
            keras.layers.ConvLSTM2D(
                case.hidden,
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
    network.build((case.batch, STEPS, INPUTS, case.rows, case.columns))
    return train(network, case)


def convolutions(case: Case) -> Step:
    """All convolutions of a training step: forward, input and weight gradients.

    Of inputs for four steps in one call, of hidden states step by step but for the first.
    """
    width, batch, reach = case.hidden, case.batch, KERNEL - 1

    def tensor(*shape: int) -> Tensor:
        values = torch.randn(*shape, device=case.device).to(case.dtype)
        return values.contiguous(memory_format=torch.channels_last)

    grid, padded = (case.rows, case.columns), (case.rows + reach, case.columns + reach)
    hidden = tensor(batch, width, *padded)
    together = {n: tensor(4 * batch, n, *padded) for n in (INPUTS, width)}
    weights = {n: tensor(4 * width, n, KERNEL, KERNEL) for n in (INPUTS, width)}
    z, z_together = (tensor(n * batch, 4 * width, *grid) for n in (1, 4))

    def both(field: Tensor, weight: Tensor, grad: Tensor, *, of_field: bool) -> None:
        F.conv2d(field, weight)
        torch.ops.aten.convolution_backward(
            *(grad, field, weight, None, [1, 1], [0, 0], [1, 1], False, [0, 0], 1),
            [of_field, True, False],
        )

    def step() -> None:
        for layer in range(LAYERS):
            n = width if layer else INPUTS
            for _ in range(STEPS // 4):
                both(together[n], weights[n], z_together, of_field=layer > 0)
            for _ in range(STEPS - 1):
                both(hidden, weights[width], z, of_field=True)

    return step


def make(subject: str, case: Case) -> Step:
    """One training step of a subject, ready to run."""
    torch.manual_seed(0)
    if subject in (OURS, RECOMPUTED):
        return train(Ours(case, recompute=subject == RECOMPUTED), case)
    if subject in (PLAIN, COMPILED):
        return train(Plain(case.hidden, compiled=subject == COMPILED), case, autocast=True)
    return (keras_layers if subject == KERAS else convolutions)(case)


def seconds(steps: dict[str, Step], rounds: int, clock: Callable[[], float]) -> dict[str, float]:
    """Median seconds of each, all taking turns; one round to warm up.

    Before each step that counts is one that does not: ours find memory of the right sizes only
    after a step of their own.
    """
    taken: dict[str, list[float]] = {name: [] for name in steps}
    for turn in range(rounds + 1):
        for name, step in steps.items():
            step()
            start = clock()
            step()
            if turn:
                taken[name].append(clock() - start)
    return {name: statistics.median(values) for name, values in taken.items()}


def gpu_clock() -> float:
    """The time when the GPU has done all that it was told."""
    torch.cuda.synchronize()
    return time.perf_counter()


def peak_megabytes(subject: str, case: Case) -> float:
    """Peak memory of training steps above what the process had before, in a new process."""
    task = json.dumps([subject, asdict(case)])
    command = [sys.executable, __file__, "--measure-memory", task]
    result = subprocess.run(command, check=True, capture_output=True, text=True)
    return float(result.stdout.split()[-1])


def measure_memory(subject: str, case: Case) -> float:
    make(subject, replace(case, batch=1))()  # libraries and their scratch space loaded
    if case.device == "cuda":
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        make(subject, case)()
        return (torch.cuda.max_memory_allocated() - before) / 2**20
    step = make(subject, case)
    start = status_kilobytes("VmRSS")
    for _ in range(2):
        step()
    return (status_kilobytes("VmHWM") - start) / 1024


def largest_batch(case: Case) -> int:
    """Samples of a case that one training step with recomputation has memory for; 0: none."""
    batch = 0
    while True:
        try:
            make(RECOMPUTED, replace(case, batch=batch + 1))()
        except torch.cuda.OutOfMemoryError:
            return batch
        batch += 1


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


def cases(
    grids: list[str] | None, precisions: list[str], *, on_gpu: bool, quick: bool
) -> list[Case]:
    """What is timed: about as many cells a step for each grid."""
    chosen = ["181x360"] if on_gpu else ["32x64", *([] if quick else ["128x256"])]
    made = []
    for grid in grids or chosen:
        height, width = map(int, grid.split("x"))
        batch = 4 if on_gpu else max(1, 4 * 32 * 64 // (height * width))
        device, hidden = ("cuda", 128) if on_gpu else ("cpu", 64)
        made += [Case(height, width, batch, p, hidden, device) for p in precisions]
    return made


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="within a minute, without compiling")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument(
        "--cpu-time", action="store_true", help="not wall clock: for busy machines, with 1 thread"
    )
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--grid", nargs="+", help="rows x columns; by default 32x64 and 128x256")
    parser.add_argument("--precision", nargs="+", choices=tuple(PRECISIONS), default=[*PRECISIONS])
    parser.add_argument("--part", nargs="+", choices=("time", "memory"), default=["time", "memory"])
    parser.add_argument("--rounds", type=int, default=7, help="steps of each that count")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--measure-memory", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    if arguments.measure_memory:
        subject, case = json.loads(arguments.measure_memory)
        print(measure_memory(subject, Case(**case)))
        return
    on_gpu = arguments.device == "cuda"
    subjects = [OURS, RECOMPUTED, PLAIN, FLOOR]
    if importlib.util.find_spec("keras"):
        subjects.append(KERAS)
    else:
        print("Keras 3 is not installed and left out: pip install keras")
    if not arguments.quick:
        subjects.append(COMPILED)
    clock = time.process_time if arguments.cpu_time else time.perf_counter
    rows = []
    rounds = 3 if arguments.quick else arguments.rounds
    timed = cases(arguments.grid, arguments.precision, on_gpu=on_gpu, quick=arguments.quick)
    for case in timed if "time" in arguments.part else []:
        steps = {name: make(name, case) for name in subjects}
        rows += report(str(case), seconds(steps, rounds, gpu_clock if on_gpu else clock), "s")
    for precision in arguments.precision if "memory" in arguments.part else []:
        batch = 4 if arguments.quick else 16
        case = Case(32, 64, batch, precision, device=arguments.device)
        named = [name for name in subjects if name != FLOOR]
        peaks = {name: peak_megabytes(name, case) for name in named}
        rows += report(f"{case}: peak above start", peaks, "MiB")
    if on_gpu and not arguments.quick:
        fine = Case(721, 1440, 1, "bfloat16", hidden=128, device="cuda")
        print(f"\n721x1440, hidden 128, recompute: batches up to {largest_batch(fine)} fit")
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
