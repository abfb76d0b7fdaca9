"""The benchmark of the ConvLSTM paper: does it beat a fully connected LSTM on moving digits?

Ten frames in, ten out, 64x64 cells, which the layers see as 16x16 patches of 4x4 (Shi et al. 2015,
section 4.1); the clips of Srivastava et al. 2015: two digits that move straight and bounce off the
edges. The score is the paper's: cross-entropy, summed over cells and the ten frames, where its
128-64-64 network reached 3670.85 and its fully connected LSTM 4832.49 after 10 000 clips, with
early stopping. Here both networks get the same time; they are those that forecast weather, on a
plane without geography: frames enter and leave as log-odds, so that untrained they persist.

The file of 10 000 MNIST test images is split: nine in ten digits make the clips that are learnt,
the others those that are scored. So figures here are not the paper's protocol, which draws from
the training images; with --digits, any MNIST image file can be given.

    python benchmarks/moving_mnist.py [--quick] [--minutes 3] [--device cuda] [--json FILE]

Measured on one core of a CPU, 3 minutes of its time for each network (kernel 3, layers of 64; two
layers of 512 units; one seed): ConvLSTM 6453.5 after 6560 clips, fully connected LSTM 10473.7 after
5200, persistence 11548.6. The order is the paper's; its figures are far, after as little learning.
"""

import argparse
import gzip
import json
import math
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from climlstm.model.baselines import LSTM
from climlstm.model.convlstm import ConvLSTM
from climlstm.model.geometry import Geometry

FRAME, DIGIT, KNOWN, AHEAD = 64, 28, 10, 10
SPEED = 0.1
"""Of a digit in a frame, in parts of the way from edge to edge (Srivastava et al. 2015)."""
LOG_ODDS = 3.0
"""Of a cell that is fully bright; minus that of a dark one."""
DIGITS = Path(__file__).parents[2] / "shared/data/real/mnist/t10k-images-idx3-ubyte.gz"
CLIPS_SCORED = 500
CONVLSTM, FULL = "ConvLSTM", "fully connected LSTM"
PAPER = {CONVLSTM: 3670.85, FULL: 4832.49}


def read_digits(path: Path) -> NDArray[np.float32]:
    """Images (N, 28, 28) between 0 and 1, of an MNIST file in idx format, compressed or not."""
    raw = path.read_bytes()
    raw = gzip.decompress(raw) if path.suffix == ".gz" else raw
    magic, number, rows, columns = np.frombuffer(raw, ">i4", 4)
    if (magic, rows, columns) != (2051, DIGIT, DIGIT):
        raise SystemExit(f"{path} does not hold MNIST images (idx3-ubyte, 28 by 28).")
    images = np.frombuffer(raw, "u1", offset=16).reshape(number, DIGIT, DIGIT)
    return images.astype("float32") / 255


def clips(digits: NDArray[np.float32], number: int, rng: np.random.Generator) -> Tensor:
    """Moving digits (number, frames, 1, 64, 64) between 0 and 1, two in each clip."""
    frames = np.zeros((number, KNOWN + AHEAD, FRAME, FRAME), dtype="float32")
    for clip in frames:
        for digit in digits[rng.integers(len(digits), size=2)]:
            for frame, (row, column) in zip(clip, track(len(clip), rng), strict=True):
                part = frame[row : row + DIGIT, column : column + DIGIT]
                np.maximum(part, digit, out=part)
    return torch.from_numpy(frames)[:, :, None]


def track(frames: int, rng: np.random.Generator) -> NDArray[np.intp]:
    """Upper left corners (frames, 2) of a digit that moves straight and bounces off the edges."""
    place, angle = rng.random(2), rng.random() * 2 * math.pi
    velocity = SPEED * np.array([math.sin(angle), math.cos(angle)])
    places = np.empty((frames, 2))
    for t in range(frames):
        place = place + velocity
        velocity = np.where((place <= 0) | (place >= 1), -velocity, velocity)
        place = place.clip(0, 1)
        places[t] = place
    return (places * (FRAME - DIGIT)).astype(np.intp)


def predict(network: nn.Module, known: Tensor) -> Tensor:
    """Log-odds of the frames ahead, (B, AHEAD, 1, 64, 64), from those known."""
    forcing = known.new_zeros(len(known), KNOWN - 1 + AHEAD, 0, FRAME, FRAME)
    steps: Iterator[Tensor] = network.steps(LOG_ODDS * (2 * known - 1), forcing)  # type: ignore[operator]
    return torch.stack(list(steps), dim=1)


def cross_entropy(log_odds: Tensor, frames: Tensor) -> Tensor:
    """Summed over cells and frames, in nats, as Table 1 of the paper has it; mean over clips."""
    return F.binary_cross_entropy_with_logits(log_odds, frames, reduction="sum") / len(frames)


def train(
    network: nn.Module, digits: NDArray[np.float32], *, seconds: float, batch: int, rate: float
) -> int:
    """Train for so many seconds, the learning rate falling to zero; returns the optimiser steps.

    On a CPU, seconds of its time; on a GPU, by the clock.
    """
    device = next(network.parameters()).device
    clock = time.process_time if device.type == "cpu" else time.perf_counter
    rng = np.random.default_rng(0)
    optimiser = torch.optim.Adam(network.parameters(), lr=rate)
    start, steps = clock(), 0
    while (done := (clock() - start) / seconds) < 1:
        for group in optimiser.param_groups:
            group["lr"] = rate * min(1, (steps + 1) / 50) * (1 + math.cos(math.pi * done)) / 2
        frames = clips(digits, batch, rng).to(device)
        loss = cross_entropy(predict(network, frames[:, :KNOWN]), frames[:, KNOWN:])
        optimiser.zero_grad()
        (loss / FRAME**2).backward()
        nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimiser.step()
        steps += 1
    return steps


@torch.no_grad()
def score(network: nn.Module | None, frames: Tensor) -> list[float]:
    """Cross-entropy of each frame ahead; None: of persistence, with the log-odds that it fits."""
    device = frames.device if network is None else next(network.parameters()).device
    total = torch.zeros(AHEAD)
    for part in frames.split(50):
        moved = part.to(device)
        known, ahead = moved[:, :KNOWN], moved[:, KNOWN:]
        last = (LOG_ODDS * (2 * known[:, -1:] - 1)).expand_as(ahead)
        log_odds = last if network is None else predict(network, known)
        losses = F.binary_cross_entropy_with_logits(log_odds, ahead, reduction="none")
        total += losses.sum(dim=(0, 2, 3, 4)).cpu()
    return (total / len(frames)).tolist()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="within a minute; says nothing")
    parser.add_argument("--minutes", type=float, default=3.0, help="for each network")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--hidden", type=int, nargs="+", help="of the ConvLSTM's layers")
    parser.add_argument("--kernel", type=int, help="of the ConvLSTM; the paper's is 5")
    parser.add_argument("--units", type=int, help="of the fully connected LSTM's two layers")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--rate", type=float, default=2e-3, help="of learning, at its peak")
    parser.add_argument("--digits", type=Path, default=DIGITS)
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    torch.manual_seed(0)
    torch.set_num_threads(1)
    on_gpu = asked.device != "cpu"
    seconds = 15.0 if asked.quick else 60 * asked.minutes
    hidden = asked.hidden or ([128, 64, 64] if on_gpu else [64, 64])
    kernel = asked.kernel or (5 if on_gpu else 3)
    units = asked.units or (2048 if on_gpu else 512)
    digits = read_digits(asked.digits)
    learnt, held_out = np.split(digits, [len(digits) * 9 // 10])
    frames = clips(held_out, 50 if asked.quick else CLIPS_SCORED, np.random.default_rng(1))
    plane = Geometry(FRAME, FRAME)
    networks = {
        CONVLSTM: ConvLSTM(
            *(1, 0, 0),
            history=KNOWN,
            geometry=plane,
            precision=torch.bfloat16,
            hidden=tuple(hidden),
            blocks=0,
            diffusion=False,
            kernel=kernel,
            patch=4,
            shared=False,
        ),
        FULL: LSTM(1, 0, 0, history=KNOWN, geometry=plane, hidden=units, layers=2, coarsen=1),
    }
    print(
        f"{len(learnt)} digits to learn from, {len(held_out)} others in {len(frames)} clips to "
        f"score; {seconds:g} s of {'one core' if not on_gpu else asked.device} for each network.\n"
        "Cross-entropy, summed over ten frames of 64x64 cells:"
    )
    rows = []
    for name, network in {"persistence": None, **networks}.items():
        steps, weights = 0, 0
        if network is not None:
            network.to(asked.device)
            weights = sum(parameter.numel() for parameter in network.parameters())
            steps = train(network, learnt, seconds=seconds, batch=asked.batch, rate=asked.rate)
        by_frame = score(network, frames)
        value = sum(by_frame)
        paper = f"   paper {PAPER[name]:.2f}" if name in PAPER else ""
        print(
            f"  {name:22s} {value:9.2f}   first frame {by_frame[0]:6.1f}, last {by_frame[-1]:6.1f}"
            f"   {weights / 1e6:.2f} M weights, {steps * asked.batch} clips learnt{paper}",
            flush=True,
        )
        rows.append(
            dict(case="moving MNIST", subject=name, value=value, unit="nat")
            | dict(against=FULL, clips=steps * asked.batch, weights=weights, by_frame=by_frame)
        )
    for row in rows:
        row["ratio"] = row["value"] / rows[-1]["value"]
    if asked.json:
        asked.json.write_text(json.dumps(rows, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
