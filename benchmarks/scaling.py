"""What do more workers bring, and what does Ray cost?

One run file on simulated weather is trained in one process, by torchrun and by Ray Train, with one
and two workers on a core each. In weak scaling each worker has the same batch, so that two are to
take as long for a step as one. Start-up is the time from the command to the first training step.
Steps are timed inside the loop, in the second half of the training: in its first seconds Ray's
helpers still import what they need, which they do once.

    python benchmarks/scaling.py [--quick] [--json FILE]
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from climlstm.demo import CATALOG
from climlstm.simulation.simulate import simulate
from climlstm.training.progress import JOURNAL, read_journal

RUN = """
name: scaling
data:
  catalog: catalog.yaml
  source: atmosphere
  step: 6h
  state: [t850, msl, u10, v10, z500]
  forcing: [season]
  periods:
    train: [2001-01-01, 2001-03-01]
    valid: [2001-03-03, 2001-03-10]
    test: [2001-03-12, 2001-04-05]
model: {name: convlstm, history: 3, options: {hidden: [32], blocks: 0}}
training:
  {horizon: 2, ramp: 0, validation_windows: 8, precision: float32, threads: 1, keep: 1}
"""
BATCH = 8
"""Windows of one worker in a step."""


@dataclass(frozen=True)
class Trial:
    """One training: who started it, with how many workers."""

    launcher: str
    workers: int
    step_s: float
    """Seconds for one optimiser step: median over the records of the loop's second half."""
    start_s: float
    """Seconds from the command to the first step."""
    end_s: float
    """Seconds from the last step to the end of the command."""
    data_wait: float
    """Share of the time in which the loop waits for data."""

    @property
    def windows_per_s(self) -> float:
        return BATCH * self.workers / self.step_s


def command(launcher: str, workers: int) -> list[str]:
    """The command line that trains, up to the run file."""
    python = [sys.executable, "-m"]
    if launcher == "torchrun":
        run = ["torch.distributed.run", "--standalone", f"--nproc-per-node={workers}", "-m"]
        return [*python, *run, "climlstm", "train", "--plain"]
    return [*python, "climlstm", "train", *(["--plain"] if launcher == "one process" else [])]


def measure(folder: Path, launcher: str, workers: int, *, epochs: int) -> Trial:
    """Train once, and read from the journal how it went."""
    settings = [
        f"cluster.workers={workers}",
        f"training.batch_size={BATCH * workers}",
        f"training.epochs={epochs * workers}",  # so that the number of steps stays
    ]
    overrides = [argument for setting in settings for argument in ("--set", setting)]
    began = time.time()
    subprocess.run(
        [*command(launcher, workers), str(folder / "run.yaml"), "--overwrite", *overrides],
        check=True,
        env=os.environ | {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "passive"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    ended = time.time()
    journal = read_journal(folder / "runs" / "scaling" / JOURNAL)
    records = [r for r in journal if r["event"] == "train"]
    later = records[len(records) // 2 :]
    batch = BATCH * workers
    first = next(r for r in journal if r["event"] == "start")
    trial = Trial(
        launcher,
        workers,
        step_s=statistics.median(batch / r["samples_per_s"] for r in later),
        start_s=first["time"] - began,
        end_s=ended - records[-1]["time"],
        data_wait=statistics.mean(r["data_wait"] for r in records),
    )
    print(f"{launcher}, {workers}: {1e3 * trial.step_s:.0f} ms a step", file=sys.stderr, flush=True)
    return trial


def rows(trials: list[Trial]) -> list[dict]:
    """Figures beside those of the same number of workers under torchrun, or of one process."""
    found = {(t.launcher, t.workers): t for t in trials}
    table = []

    def add(case: str, trial: Trial, value: float, unit: str, against: Trial, other: float) -> None:
        table.append(
            {
                "case": case,
                "subject": f"{trial.launcher}, {trial.workers}",
                "value": value,
                "unit": unit,
                "against": f"{against.launcher}, {against.workers}",
                "ratio": value / other if other else None,
            }
        )

    for (launcher, workers), trial in found.items():
        plain = found["torchrun" if workers > 1 else "one process", workers]
        alone = found.get((launcher, 1), found["one process", 1])
        add("step", trial, trial.step_s, "s", plain, plain.step_s)
        add("start-up", trial, trial.start_s, "s", plain, plain.start_s)
        add("end", trial, trial.end_s, "s", plain, plain.end_s)
        add("data wait", trial, trial.data_wait, "share", plain, plain.data_wait)
        if workers > 1:
            speeds = trial.windows_per_s, alone.windows_per_s
            add("throughput", trial, speeds[0], "windows/s", alone, speeds[1])
            efficiency = speeds[0] / speeds[1] / workers
            add("weak-scaling efficiency", trial, efficiency, "share", alone, 1.0)
    return sorted(table, key=lambda row: row["case"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="one short training of each kind")
    parser.add_argument("--json", type=Path, help="write the rows here, too")
    arguments = parser.parse_args()
    rounds, epochs = (1, 5) if arguments.quick else (2, 6)
    kinds = [("one process", 1), ("ray", 1), ("torchrun", 2), ("ray", 2)]
    with tempfile.TemporaryDirectory(prefix="climlstm-scaling-") as name:
        folder = Path(name)
        simulate(folder / "atmosphere.zarr", years=100 / 365.25, spin_up_days=30, seed=1)
        (folder / "catalog.yaml").write_text(CATALOG)
        (folder / "run.yaml").write_text(RUN)
        trials = [
            [measure(folder, *kind, epochs=epochs) for kind in kinds]  # in turn: machines drift
            for _ in range(rounds)
        ]
    best = [min(of_a_kind, key=lambda t: t.step_s) for of_a_kind in zip(*trials, strict=True)]
    table = rows(best)
    for row in table:
        ratio = "" if row["ratio"] is None else f"{row['ratio']:8.2f} × {row['against']}"
        print(f"{row['case']:24} {row['subject']:14} {row['value']:9.3f} {row['unit']:9} {ratio}")
    if arguments.json:
        arguments.json.write_text(json.dumps(table, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
