"""Does training on shuffled blocks reach the loss that full shuffling reaches?

Trains the same small network on the simulated atmosphere with windows in different orders, several
seeds each, and compares validation losses seed by seed: all windows shuffled freely, stratified as
the stream does it where a cube fits into memory, and segments of consecutive windows of several
lengths, of which several are mixed, and follow one another in time.

    python benchmarks/shuffle.py [--quick] [--json FILE] [--seeds 4] [--orders NAME ...]
                                 [--folder DIR]

Minutes on one core. The difference from full shuffling is given in units of its standard error over
the seeds: within 2, no difference is seen.
"""

import argparse
import json
import math
import statistics as stats
import tempfile
import warnings
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from climlstm import plugins
from climlstm.config import Config, parse_config
from climlstm.data.windows.plan import CONSECUTIVE, WindowPlan
from climlstm.data.windows.starts import Starts
from climlstm.demo import CATALOG
from climlstm.simulation.simulate import simulate
from climlstm.training.learner import Learner
from climlstm.training.parallel import Workers
from climlstm.training.task import Task, open_task
from climlstm.training.untrained import build_forecaster
from climlstm.training.validation import validate

FULL = "full shuffling"
BATCH = 16
ALONE = Workers(0, 1, torch.device("cpu"))


@dataclass(frozen=True, eq=False)
class FullyShuffled(WindowPlan):
    """Batches of windows drawn from the whole period without replacement."""

    def groups(self, epoch: int, first: int = 0) -> list[Starts]:
        random = np.random.default_rng([self.seed, epoch])
        whole = self.batches_per_epoch * self.batch_size
        batches = random.permutation(self.starts)[:whole].reshape(-1, 1, self.batch_size)
        return list(batches[first:])


@dataclass(frozen=True, eq=False)
class InOrder(WindowPlan):
    """Batches of consecutive windows, not shuffled at all: what shuffling is for."""

    def groups(self, epoch: int, first: int = 0) -> list[Starts]:
        whole = self.batches_per_epoch * self.batch_size
        return list(self.starts[:whole].reshape(-1, 1, self.batch_size)[first:])


ORDERS = {
    FULL: (FullyShuffled, 1, None, 1),
    "stratified (fits into memory)": (WindowPlan, 1, None, 1),
    **{
        f"{mixed} segments of {segment} mixed": (WindowPlan, segment, mixed, CONSECUTIVE)
        for segment in (45, 90, 180)
        for mixed in (16, 4)
    },
    **{
        f"4 segments of {segment}, each from elsewhere": (WindowPlan, segment, 4, 1)
        for segment in (45, 90)
    },
    "1 segment of 90": (WindowPlan, 90, 1, CONSECUTIVE),
    "not shuffled": (InOrder, 1, None, 1),
}
"""Kind of plan, windows in a segment, segments mixed, segments that follow one another."""


def make_run(folder: Path, years: float) -> Config:
    """The weather, unless it is there, and a run on half its resolution."""
    store = folder / "atmosphere.zarr"
    if not store.exists():
        simulate(store, years=years + 0.5, start="2001-01-01", seed=3)
    (folder / "catalog.yaml").write_text(CATALOG, encoding="utf-8")
    split = np.datetime64("2001-01-01") + np.timedelta64(round(years * 365.25), "D")
    day = np.timedelta64(1, "D")
    periods = {
        "train": [np.datetime64("2001-01-01"), split - day],
        "valid": [split, split + 150 * day],
        "test": [split + 151 * day, split + 160 * day],
    }
    return parse_config(
        {
            "name": "shuffle",
            "data": {
                "catalog": str(folder / "catalog.yaml"),
                "source": "atmosphere",
                "step": "6h",
                "coarsen": 2,
                "state": ["t850", "msl", "u10", "v10", "z500", "z200"],
                "forcing": ["season"],
                "static": ["orography"],
                "periods": {name: list(map(str, span)) for name, span in periods.items()},
            },
            "model": {"name": "convlstm", "history": 1, "options": {"hidden": [32], "blocks": 0}},
            "training": {
                "horizon": 2,
                "batch_size": BATCH,
                "epochs": 2,
                "learning_rate": 4e-3,
                "precision": "float32",
            },
            "cluster": {"storage": str(folder / "runs")},
        },
        where="shuffle",
    )


def train(config: Config, task: Task, order: str, seed: int) -> float:
    """Validation loss after all epochs."""
    kind, segment, mixed, consecutive = ORDERS[order]
    settings = config.training.model_copy(update={"seed": seed})
    sizes = {"segment": segment, "mixed": mixed, "consecutive": consecutive}
    plan = kind(task.plan.starts, batch_size=BATCH, seed=seed, **sizes)
    task = replace(task, sources=(replace(task.sources[0], plan=plan),))
    torch.manual_seed(seed)
    loss = plugins.create("losses", "mse", {})
    learner = Learner(
        build_forecaster(
            config, task.data.cube, task.sources[0].statistics, precision=torch.float32
        ),
        loss,
        task.weight,
        config=settings,
        steps=settings.epochs * plan.batches_per_epoch,
        workers=ALONE,
    )
    step = 0
    for epoch in range(settings.epochs):
        for window, share in task.batches(epoch, 0):
            learner.learn(window, step=step, share=share)
            step += 1
    return validate(
        learner.averaged,
        task.validation_windows(),
        horizon=settings.horizon,
        loss=loss,
        weight=learner.weight,
        workers=ALONE,
    ).loss


def compare(losses: dict[str, list[float]]) -> list[dict[str, object]]:
    """Rows of the table; differences are taken seed by seed."""
    rows = []
    for order, found in losses.items():
        apart = [a - b for a, b in zip(found, losses[FULL], strict=True)]
        error = stats.stdev(apart) / math.sqrt(len(apart)) if len(apart) > 1 else math.nan
        ratio = stats.mean(apart) / error if order != FULL and error else None
        rows.append(
            {
                "case": "simulated atmosphere",
                "subject": order,
                "value": float(f"{stats.mean(found):.5g}"),
                "unit": "validation loss",
                "spread": float(f"{stats.stdev(found) if len(found) > 1 else math.nan:.2g}"),
                "against": FULL,
                "ratio": float(f"{stats.mean(found) / stats.mean(losses[FULL]):.4g}"),
                "standard_errors": None if ratio is None else float(f"{ratio:.2g}"),
            }
        )
    return rows


def show(rows: list[dict[str, object]]) -> None:
    print(f"{'order':34}{'validation loss':>18}{'over seeds':>12}{'ratio':>8}{'st. errors':>12}")
    for each in rows:
        errors = "" if each["standard_errors"] is None else f"{each['standard_errors']:+}"
        print(
            f"{each['subject']:34}{each['value']:>18}{each['spread']:>12}"
            f"{each['ratio']:>8}{errors:>12}"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="half a year, two seeds: a minute")
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--seeds", type=int, default=4)
    parser.add_argument("--orders", nargs="+", choices=ORDERS, default=list(ORDERS))
    parser.add_argument("--folder", type=Path, help="where the weather is kept for the next run")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    losses: dict[str, list[float]] = {order: [] for order in dict.fromkeys([FULL, *options.orders])}
    with tempfile.TemporaryDirectory() as name:
        folder = options.folder or Path(name)
        folder.mkdir(parents=True, exist_ok=True)
        config = make_run(folder, years=0.5 if options.quick else 1)
        with open_task(config, ALONE) as task:
            for seed in range(2 if options.quick else options.seeds):
                for order, found in losses.items():
                    found.append(train(config, task, order, seed))
                    print(f"seed {seed}: {order}: {found[-1]:.5f}", flush=True)
    rows = compare(losses)
    show(rows)
    if options.json:
        options.json.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
