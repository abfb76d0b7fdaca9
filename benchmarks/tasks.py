"""What does a task cost on the nodes that Ray holds, by each way to spread Dask's work over them?

Tiny tasks, which all carry one description of 100 kB as the shards of `climlstm prepare` do, and
the preparation of simulated weather in one process and by each way. Ray and dask.distributed have
two workers on this machine.

    python benchmarks/tasks.py [--quick] [--json FILE]
"""

import argparse
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import dask
import dask.threaded
import ray

from climlstm.config import load_config
from climlstm.data.prepare import prepare
from climlstm.demo import CATALOG
from climlstm.on_ray.tasks import RayExecutor
from climlstm.runs import plan_preparation
from climlstm.simulation.simulate import simulate

RUN = """
name: tasks
data:
  catalog: catalog.yaml
  source: atmosphere
  step: 6h
  state: [t850, msl, u10, v10, z500]
  periods:
    train: [2001-01-01, 2001-02-15]
    valid: [2001-02-16, 2001-03-10]
    test: [2001-03-11, 2001-04-05]
"""
WORKERS = 2


def tiny(description: bytes, number: int) -> int:
    """What a task returns whose work is nothing."""
    return number + len(description)


def through_dask(scheduler: Any, tasks: int) -> None:
    """As prepare hands out its shards."""
    description = dask.delayed(os.urandom(100_000), pure=False, traverse=False)
    delayed = [dask.delayed(tiny)(description, number) for number in range(tasks)]
    assert len(dask.compute(*delayed, scheduler=scheduler)) == tasks


@contextmanager
def schedulers() -> Iterator[dict[str, Any]]:
    """What `dask.compute` takes, by name, each ready to work."""
    from distributed import Client, LocalCluster
    from ray.util.dask import ray_dask_get

    with ExitStack() as stack:
        stack.enter_context(ray.init(num_cpus=WORKERS, include_dashboard=False))
        cluster = stack.enter_context(
            LocalCluster(n_workers=WORKERS, threads_per_worker=1, dashboard_address=None)
        )
        client = stack.enter_context(Client(cluster))
        yield {
            "threads": dask.threaded.get,
            "Ray tasks, our executor": RayExecutor(workers=WORKERS),
            "Ray's Dask scheduler": ray_dask_get,
            "dask.distributed": client.get,
        }


def seconds(work: Callable[[], Any], rounds: int) -> float:
    """The median, after one round that starts processes and imports."""
    work()
    found = []
    for _ in range(rounds):
        began = time.perf_counter()
        work()
        found.append(time.perf_counter() - began)
    return statistics.median(found)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="fewer tasks and rounds")
    parser.add_argument("--json", type=Path, help="write the rows here, too")
    arguments = parser.parse_args()
    tasks, rounds = (200, 1) if arguments.quick else (1000, 3)
    table = []
    with tempfile.TemporaryDirectory(prefix="climlstm-tasks-") as name, schedulers() as ways:
        folder = Path(name)
        simulate(folder / "atmosphere.zarr", years=100 / 365.25, spin_up_days=30, seed=1)
        (folder / "catalog.yaml").write_text(CATALOG)
        (folder / "run.yaml").write_text(RUN)
        config = load_config(folder / "run.yaml")
        for way, scheduler in ways.items():
            each = seconds(lambda s=scheduler: through_dask(s, tasks), rounds) / tasks
            table.append(_row("overhead of a task", way, 1e3 * each, "ms", table))
        numbers = iter(range(1000))

        def write(scheduler: Any) -> None:
            out = folder / f"{next(numbers)}.zarr"
            prepare(plan_preparation(config, out), out, scheduler=scheduler)

        for way, scheduler in ways.items():
            each = seconds(lambda s=scheduler: write(s), rounds)
            table.append(_row("preparation", way, each, "s", table))
    for row in table:
        print(
            f"{row['case']:20} {row['subject']:26} {row['value']:8.3f} {row['unit']:3}"
            f"{row['ratio']:8.2f} × {row['against']}"
        )
    if arguments.json:
        arguments.json.write_text(json.dumps(table, indent=1) + "\n", encoding="utf-8")


def _row(case: str, subject: str, value: float, unit: str, table: list[dict]) -> dict:
    """Beside threads, which come first in each case."""
    first = next((row["value"] for row in table if row["case"] == case), value)
    return {
        "case": case,
        "subject": subject,
        "value": value,
        "unit": unit,
        "against": "threads",
        "ratio": value / first,
    }


if __name__ == "__main__":
    main()
