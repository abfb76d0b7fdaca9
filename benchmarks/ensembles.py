"""Does spread tell the error? A network conditioned on noise, and perturbed initial states.

The deep ConvLSTM of `skill.py` is trained by CRPS with noise, and by squared errors, both on the
same simulated weather. The first forecasts ensembles from unperturbed and from perturbed states,
the second one from perturbed states, and a single forecast. Spread over the error of the ensemble
mean is 1 where the two agree; the fair CRPS of a single forecast is its absolute error.

    python benchmarks/ensembles.py [--quick] [--json FILE] [--members 10] [--weather STORE]
                                   [--keep DIR]

With --keep, what was trained and scored is kept; the same command goes on.

Measured (one seed, one pass over four years, ten members, 31 initialisations, six channels). Spread
over error at days 2 to 7: 0.75 to 1.00 with noise, 0.94 to 1.07 with states perturbed besides (1.23
to 1.33 at day 1). The fair CRPS of z500 at 5 days: 263, 258. Networks without diffusion: 0.75 to
0.96, 0.90 to 1.03, and 0.41 to 0.66 from perturbed states alone; CRPS 283, 278, 348; of the single
forecast 455. Training with noise takes twice as long.
"""

import argparse
import json
import shutil
import time
from pathlib import Path

import pandas as pd
from rich.console import Console
from rich.table import Table
from skill import NETWORKS, prepare, read_table, working_folder, write_table

from climlstm import runs
from climlstm.config import PluginChoice, load_config
from climlstm.forecasting import open_forecasts
from climlstm.runs import Trained, find_trained

LEADS = [pd.Timedelta(days=d) for d in range(1, 8)]
NETWORK = NETWORKS["ConvLSTM, deep"]
NOISE = [
    *("model.noise=2", "training.members=2", "training.loss.name=crps"),
    *("training.batch_size=8", "training.learning_rate=1.5e-3"),
]
"""Two members of half as many windows: a step costs as much as one without noise."""
PERTURBATION = 0.25
"""Amplitude for initial states, as a share of the climatological standard deviation."""
METRICS = {"spread_skill": "spread over error", "crps": "fair CRPS", "rmse": "RMSE of the mean"}


def main() -> None:
    """Train both networks, forecast, score, and print one table a metric."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="within minutes; says nothing")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--members", type=int, default=10)
    parser.add_argument("--horizon", type=int, default=4)
    parser.add_argument("--weather", type=Path, help="keep what is simulated here, for other runs")
    parser.add_argument("--keep", type=Path, help="keep scores here, and go on from those that are")
    asked = parser.parse_args()
    console = Console(width=max(120, Console().width))
    with working_folder(asked.keep) as folder:
        prepare(folder, asked.weather, years=1 if asked.quick else 4)
        horizon = f"training.horizon={1 if asked.quick else asked.horizon}"
        noisy = trained(folder, "noise", [*NOISE, horizon])
        tables = [
            scored(folder, "noise", noisy, asked.members, 0.0),
            scored(folder, "noise, perturbed", noisy, asked.members, PERTURBATION),
        ]
        plain = trained(folder, "plain", [horizon])
        tables += [
            scored(folder, "perturbed", plain, asked.members, PERTURBATION),
            scored(folder, "single", plain, 1, 0.0),
        ]
        scores = pd.concat(tables)
    for metric, title in METRICS.items():
        console.print(_table(scores[scores["metric"] == metric], title))
    if asked.json:
        asked.json.write_text(json.dumps(_rows(scores), indent=1), encoding="utf-8")


def trained(folder: Path, name: str, settings: list[str]) -> Trained:
    """A network, trained in this process; where it was before, as it is."""
    config = load_config(folder / "run.yaml", [f"name={name}", *NETWORK, *settings])
    began = time.process_time()
    checkpoint = runs.train(config, resume=True, under_ray=False)
    print(f"{name}: {time.process_time() - began:.0f} CPU s of training", flush=True)
    return find_trained(checkpoint)


def scored(
    folder: Path, name: str, network: Trained, members: int, perturbation: float
) -> pd.DataFrame:
    """Scores of seven days of forecasts of the test period, one every nine days."""
    kept = folder / "scores" / f"{name}.csv"
    if kept.exists():
        return read_table(kept)
    kept.parent.mkdir(exist_ok=True)
    changed = {"perturbation": perturbation, "every": pd.Timedelta("9D").to_pytimedelta()}
    forecast = network.config.forecast.model_copy(update=changed)
    config = network.config.model_copy(update={"forecast": forecast})
    store = folder / f"{name}.zarr"
    shutil.rmtree(store, ignore_errors=True)  # of a benchmark that was stopped
    runs.forecast(
        Trained(network.checkpoint, config, network.provenance), store, members=members, steps=28
    )
    evaluators = [PluginChoice(name=metric) for metric in ("rmse", "crps", "spread_skill")]
    found = runs.evaluate(open_forecasts(store), model=name, baselines=(), evaluators=evaluators)
    shutil.rmtree(store)
    print(f"{name}: forecast and scored", flush=True)
    return write_table(found.scores[found.scores["lead_time"].isin(LEADS)], kept)


def _table(scores: pd.DataFrame, title: str) -> Table:
    models = list(dict.fromkeys(scores["model"]))
    table = Table("channel", "lead", *models, title=title, title_justify="left", box=None)
    for (channel, lead), rows in _named(scores).groupby(["channel", "lead_time"], sort=False):
        by_model = rows.set_index("model")
        cells = [_cell(by_model.loc[m]) if m in by_model.index else "" for m in models]
        table.add_row(channel, f"{lead / pd.Timedelta('1D'):g} d", *cells)
    return table


def _cell(row: pd.Series) -> str:
    interval = "" if pd.isna(row["ci_low"]) else f" [{row['ci_low']:.3g}, {row['ci_high']:.3g}]"
    return f"{row['value']:.3g}{interval}"


def _named(scores: pd.DataFrame) -> pd.DataFrame:
    level = scores["level"].map(lambda value: "" if pd.isna(value) else f"{value:g}")
    return scores.assign(channel=scores["variable"] + level)


def _rows(scores: pd.DataFrame) -> list[dict[str, object]]:
    """Each kind of ensemble against the single forecast; spread over error as it is."""
    named = _named(scores).set_index(["metric", "channel", "lead_time", "model"])["value"]
    rows: list[dict[str, object]] = []
    for (metric, channel, lead, model), value in named.items():
        if metric not in METRICS:
            continue
        single = 1.0 if metric == "spread_skill" else named[(metric, channel, lead, "single")]
        rows.append(
            {
                "case": f"{metric} {channel} {lead / pd.Timedelta('1D'):g}d",
                "subject": model,
                "value": value,
                "unit": metric,
                "against": "the error" if metric == "spread_skill" else "single",
                "ratio": value / single,
            }
        )
    return rows


if __name__ == "__main__":
    main()
