"""What does a ConvLSTM gain on real weather? The two example run files, over seeds.

The sets are short, a month of hourly temperature and sixteen days of a storm, so this shows that
real analyses go the whole way and that something is learnt, not how good forecasts can become.

    CLIMLSTM_REAL_DATA=FOLDER python benchmarks/real_skill.py [--seeds 3] [--json FILE]

Measured with one seed, as RMSE over that of persistence. Storm, at 24 h, the six channels: ConvLSTM
0.79 to 0.96, deep ConvLSTM 0.71 to 0.89, CNN 0.69 to 0.92; the LSTM stays at persistence. Britain,
at 3 h and 12 h: ConvLSTM 0.91 and 0.82, deep 0.90 and 0.71, CNN 0.70 and 0.73, LSTM 0.93 and 0.72;
at 24 h, when the sun is where it was, none is better than persistence, and at 12 h climatology is
better than all. Three weeks of one spring are too short to learn what comes after half a day.
"""

import argparse
import json
import tempfile
import time
from pathlib import Path

import pandas as pd
from rich.console import Console
from rich.table import Table

from climlstm import runs
from climlstm.config import PluginChoice, load_config
from climlstm.forecasting import open_forecasts
from climlstm.runs import find_trained

EXAMPLES = Path(__file__).parents[1] / "catalogs" / "examples"
SETS = {
    "era5_t2m_uk_2019_03": [1, 3, 6, 12, 24],
    "storm_jan1996": [6, 12, 24],
}
"""Run files, and lead times in hours."""
NETWORKS = {
    "ConvLSTM": ["model.options={hidden: [48, 48], blocks: 0, diffusion: false}"],
    "ConvLSTM, deep": ["model.options={hidden: [32], blocks: 2, diffusion: false}"],
    "CNN": ["model.name=cnn", "model.options={hidden: 40}"],
    "LSTM": ["model.name=lstm"],
}
KEYS = ["set", "channel", "lead", "model"]


def main() -> None:
    """Train every network on every set with every seed; print RMSE."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        scores = pd.concat(
            [
                measure(Path(scratch), name, network, seed)
                for name in SETS
                for network in NETWORKS
                for seed in range(asked.seeds)
            ]
        )
    found = scores.groupby(KEYS, sort=False)["value"].agg(["mean", "min", "max"])
    models = [*NETWORKS, "persistence", "climatology"]
    for name, own in found.groupby(level="set", sort=False):
        table = Table("channel", "lead", *models, title=f"RMSE, {name}", box=None)
        for (channel, lead), rows in own.groupby(level=["channel", "lead"], sort=False):
            cells = [_cell(*rows.loc[(name, channel, lead, model)]) for model in models]
            table.add_row(channel, f"{lead} h", *cells)
        Console(width=140).print(table)
    if asked.json:
        asked.json.write_text(json.dumps(_as_json(found["mean"]), indent=1), encoding="utf-8")


def measure(folder: Path, name: str, network: str, seed: int) -> pd.DataFrame:
    """RMSE of one network, and of persistence and climatology, at chosen leads."""
    run = f"{name}-{[*NETWORKS].index(network)}-{seed}"
    settings = [f"name={run}", f"cluster.storage={folder}/runs", f"training.seed={seed}"]
    settings += NETWORKS[network]
    config = load_config(EXAMPLES / f"{name}.yaml", settings)
    used = time.process_time()
    trained = find_trained(runs.train(config, under_ray=False))
    print(f"{run}: {time.process_time() - used:.0f} CPU s of training", flush=True)
    runs.forecast(trained, folder / f"{run}.zarr")
    forecasts = open_forecasts(folder / f"{run}.zarr")
    scores = runs.evaluate(forecasts, model=network, evaluators=[PluginChoice(name="rmse")]).scores
    chosen = scores[(scores["metric"] == "rmse") & (scores["region"] == "global")]
    level = chosen["level"].map(lambda value: "" if pd.isna(value) else f"{value:g}")
    hours = (chosen["lead_time"] / pd.Timedelta("1h")).round().astype(int)
    named = chosen.assign(set=name, channel=chosen["variable"] + level, lead=hours)
    return named.loc[hours.isin(SETS[name]), [*KEYS, "value"]]


def _cell(mean: float, low: float, high: float) -> str:
    return f"{mean:.3g}" + (f" [{low:.3g}, {high:.3g}]" if high > low else "")


def _as_json(means: pd.Series) -> list[dict[str, object]]:
    return [
        {
            "case": f"RMSE {name} {channel} {lead}h",
            "subject": model,
            "value": value,
            "unit": "units of the channel",
            "against": "persistence",
            "ratio": value / means[(name, channel, lead, "persistence")],
        }
        for (name, channel, lead, model), value in means.items()
    ]


if __name__ == "__main__":
    main()
