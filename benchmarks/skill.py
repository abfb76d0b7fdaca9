"""What does a ConvLSTM gain? Beside an LSTM and a CNN of about equal size, over several seeds.

All train on the same simulated weather, for the same number of windows and with the same loop, and
are scored on the same initialisations of a year that none has seen, beside persistence, climatology
and the model that made the weather (its own forecasts from slightly wrong states: the limit).

    python benchmarks/skill.py [--quick] [--json FILE] [--seeds 3] [--years 4] [--epochs 4]

Printed is the mean over the seeds and, in brackets, the smallest and the largest value.
"""

import argparse
import json
import tempfile
import time
from pathlib import Path

import pandas as pd
from rich.console import Console
from rich.table import Table

from climlstm.config import load_config
from climlstm.data.simulate import predictability, simulate
from climlstm.demo import CATALOG, INITIAL_ERROR, PERFECT, run_text
from climlstm.forecasting import open_forecasts
from climlstm.model.saving import load_forecaster
from climlstm.runs import evaluate_run, find_trained, forecast_run, train_run

LEADS = [pd.Timedelta(hours=h) for h in (12, 24, 48, 72, 120)]
NETWORKS = {
    "ConvLSTM": ["model.name=convlstm", "model.options={hidden: [64, 64], patch: 2}"],
    "CNN": ["model.name=cnn", "model.options={hidden: 84}"],
    "LSTM": ["model.name=lstm", "model.options={hidden: 120}"],
}
"""About half a million weights each; the demo's ConvLSTM has four times as many."""


def main() -> None:
    """Train, forecast and score every network with every seed; print one table a metric."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="within a minute; says nothing")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--years", type=int, default=4)
    parser.add_argument("--epochs", type=int)
    asked = parser.parse_args()
    years, seeds, epochs = (1, 1, 1) if asked.quick else (asked.years, asked.seeds, asked.epochs)
    console = Console()
    with tempfile.TemporaryDirectory() as scratch:
        scores = measure(Path(scratch), years=years, seeds=seeds, epochs=epochs, console=console)
    for metric in ("rmse", "acc"):
        console.print(_table(scores, metric))
    if asked.json:
        asked.json.write_text(json.dumps(_rows(scores), indent=1), encoding="utf-8")


def measure(
    folder: Path, *, years: int, seeds: int, epochs: int | None, console: Console
) -> pd.DataFrame:
    """Scores of all networks and seeds: the table of `evaluate`, with a column `seed`."""
    (folder / "catalog.yaml").write_text(CATALOG, encoding="utf-8")
    (folder / "run.yaml").write_text(run_text(years=years, workers=1), encoding="utf-8")
    simulate(folder / "atmosphere.zarr", years=years + 1, start="2001-01-01")
    tables = []
    for seed in range(seeds):
        for network, choice in NETWORKS.items():
            settings = [f"name={network}-{seed}", f"training.seed={seed}", *choice]
            settings += [f"training.epochs={epochs}"] if epochs else []
            began = time.monotonic()
            config = load_config(folder / "run.yaml", settings)
            trained = find_trained(train_run(config, under_ray=False))
            seconds = time.monotonic() - began
            forecaster, _ = load_forecaster(trained.checkpoint)
            size = sum(p.numel() for p in forecaster.network.parameters())
            console.print(
                f"{network}, seed {seed}: {size:,} parameters, trained in {seconds:.0f} s"
            )
            store = folder / f"{network}-{seed}.zarr"
            forecast_run(trained, store)
            baselines = ("persistence", "climatology") if not tables else ()
            scores = evaluate_run(open_forecasts(store), model=network, baselines=baselines).scores
            tables.append(scores.assign(seed=seed))
    forecasts = open_forecasts(store)
    perfect = predictability(
        folder / "atmosphere.zarr",
        init_times=list(forecasts["init_time"].values[::3]),
        steps=forecasts.sizes["lead_time"],
        amplitude=INITIAL_ERROR,
    ).assign_attrs(forecasts.attrs)
    limit = evaluate_run(perfect, model=PERFECT, baselines=()).scores
    return pd.concat([*tables, limit.assign(seed=0)], ignore_index=True)


def _summary(scores: pd.DataFrame, metric: str) -> pd.DataFrame:
    """Mean, smallest and largest value over the seeds, by channel, lead and model."""
    chosen = scores[(scores["metric"] == metric) & scores["lead_time"].isin(LEADS)]
    level = chosen["level"].map(lambda value: "" if pd.isna(value) else f"{value:g}")
    named = chosen.assign(channel=chosen["variable"] + level)
    return named.groupby(["channel", "lead_time", "model"], sort=False)["value"].agg(
        ["mean", "min", "max"]
    )


def _table(scores: pd.DataFrame, metric: str) -> Table:
    summary = _summary(scores, metric)
    models = list(dict.fromkeys(summary.index.get_level_values("model")))
    table = Table("channel", "lead", *models, title=metric, title_justify="left", box=None)
    for (channel, lead), rows in summary.groupby(level=[0, 1], sort=False):
        cells = []
        for model in models:
            if (channel, lead, model) not in rows.index:
                cells.append("")
                continue
            mean, low, high = rows.loc[(channel, lead, model)]
            spread = f" [{low:.3g}, {high:.3g}]" if high > low else ""
            cells.append(f"{mean:.3g}{spread}")
        table.add_row(channel, f"{lead / pd.Timedelta('1h'):.0f}h", *cells)
    return table


def _rows(scores: pd.DataFrame) -> list[dict[str, object]]:
    """Each network's mean against the ConvLSTM's, by metric, channel and lead."""
    rows: list[dict[str, object]] = []
    for metric in ("rmse", "acc"):
        summary = _summary(scores, metric)["mean"]
        for (channel, lead, model), value in summary.items():
            reference = summary[(channel, lead, "ConvLSTM")]
            rows.append(
                {
                    "case": f"{metric} {channel} {lead / pd.Timedelta('1h'):.0f}h",
                    "subject": model,
                    "value": value,
                    "unit": metric,
                    "against": "ConvLSTM",
                    "ratio": value / reference,
                }
            )
    return rows


if __name__ == "__main__":
    main()
