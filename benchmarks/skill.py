"""What does a ConvLSTM gain? Beside an LSTM, a CNN and an OpenSTL-style ConvLSTM, over seeds.

All train on the same simulated weather, for the same number of windows and with the same loop, and
are scored on the same initialisations of a year that none has seen, beside persistence, climatology
and the model that made the weather (its own forecasts from slightly wrong states: the limit).

    python benchmarks/skill.py [--quick] [--json FILE] [--seeds 3] [--years 4] [--epochs N]
                               [--networks NAME ...] [--days 14] [--keep DIR]

With --keep, what a network scored is kept as soon as it is there; the same command goes on.

Printed are weights and cost; RMSE, ACC and bias by lead; the lead until which the ACC of z500
stays above 0.6; and power, the variance of forecasts over that of the truth, in bands of
wavelengths, and of those resolved wavenumbers for which it is least and greatest: 1 is sharp and
stable. How far chance alone takes single wavenumbers from 1, persistence shows. Each number is the
mean over the seeds and, in brackets, the smallest and the largest value.

Measured on one core, training on four years, days of ACC > 0.6 of z500 (CPU seconds of training):
deep ConvLSTM 4.38, 4.29, 4.48 (172), deep and sharp 4.58, 4.49, 4.39 (369), ConvLSTM 3.21, 3.14,
3.28 (131), OpenSTL-style 1.30, 1.25, 1.34 (215), LSTM 0.98 three times (11), all with three seeds;
CNN 4.4 (666) with one; persistence 0.98. Without diffusion, the deep one has 4.40, 4.28, 4.44
(172). Power at 14 days, least to greatest of six channels, mean over the seeds, above 5000 km, 2500
to 5000 km, below: deep 0.48 to 0.70, 0.54 to 0.75, 0.30 to 0.40, and without diffusion 0.75 to
0.99, 0.72 to 0.80, 0.55 to 2.5; deep and sharp 0.75 to 0.91, 0.82 to 0.89, 0.76 to 1.07; ConvLSTM
1.9 to 3.5, 0.91 to 1.5, 0.73 to 5.3; OpenSTL-style 0.11 to 0.23, 0.06 to 0.36, 0.04 to 2.9; CNN
0.68 to 0.92, 0.80 to 0.95, 0.60 to 1.9. Single resolved wavenumbers of persistence have 0.83 to
1.25, those of deep and sharp 0.42 to 1.56.
"""

import argparse
import json
import re
import shutil
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

from climlstm import runs
from climlstm.config import PluginChoice, load_config
from climlstm.demo import CATALOG, INITIAL_ERROR, PERFECT, run_text
from climlstm.evaluation.evaluate import Evaluation
from climlstm.evaluation.tables import useful_lead
from climlstm.forecasting import open_forecasts
from climlstm.model.convlstm import ConvLSTM, Stack, State
from climlstm.model.geometry import Geometry
from climlstm.model.network import GridNetwork
from climlstm.model.padding import interior
from climlstm.model.saving import read_forecaster
from climlstm.runs import find_trained
from climlstm.simulation.simulate import predictability, simulate

LEADS = [pd.Timedelta(hours=h) for h in (12, 24, 48, 72, 120, 168, 336)]
NETWORKS = {
    "ConvLSTM": [
        "model.name=convlstm",
        "model.options={hidden: [64, 64], blocks: 0, diffusion: false, patch: 2}",
    ],
    "ConvLSTM, deep": [
        "model.name=convlstm",
        "model.options={hidden: [56], blocks: 2, patch: 2}",
    ],
    "ConvLSTM, deep and sharp": [
        "model.name=convlstm",
        "model.options={hidden: [56], blocks: 2, patch: 2}",
        "training.loss={name: amse, options: {factor: truth}}",
        "training.horizon=8",
    ],
    "OpenSTL-style": [
        "model.name=__main__:OneShot",
        "model.options={hidden: [24, 24, 24, 24], kernel: 5, patch: 2}",
        "training.loss.name=__main__:Unweighted",
        "training.balance=state",
        "training.ramp=0",
    ],
    "CNN": ["model.name=cnn", "model.options={hidden: 84}"],
    "LSTM": ["model.name=lstm", "model.options={hidden: 120}"],
}
"""About half a million weights each; the demo's ConvLSTM has four times as many. A training step of
the ConvLSTMs costs about the same, over eight steps twice as much; the CNN, on the full grid,
multiplies four times as often. The loss `amse` is climlstm-spectral's."""

EVALUATORS = [
    PluginChoice(name="rmse"),
    PluginChoice(name="acc"),
    PluginChoice(name="bias"),
    PluginChoice(
        name="power_spectrum",
        options={"lead_times": [f"{lead / pd.Timedelta('1h'):.0f}h" for lead in LEADS]},
    ),
]
FAINTEST = 1e-3
"""Of the strongest band's power: bands below it are not resolved by the weather simulated."""
REFERENCES = "references.csv"
BANDS_KM = {
    "power above 5000 km": (5000, np.inf),
    "power 2500-5000 km": (2500, 5000),
    "power below 2500 km": (0, 2500),
}
METRICS = ("rmse", "acc", "bias", *BANDS_KM, "least power", "greatest power")


class OneShot(GridNetwork):
    """ConvLSTM as in OpenSTL (Tan et al. 2023, arXiv:2306.11249), in our own parts.

    Zeros beyond all edges of the grid, and a 1x1 convolution of the last layer that gives the next
    state itself, from one cell size to the next without regard to where on the globe it is.
    """

    Options = ConvLSTM.Options

    def build(self, channels: int, fields: int, *, history: int, scale: Tensor | None) -> None:
        """Make the parts; history and the scale of tendencies are not needed."""
        patch = self.options.patch
        flat = Geometry(self.geometry.rows, self.geometry.columns).coarsened(patch)
        self.stack = Stack((channels + fields) * patch**2, self.options, flat)
        self.head = nn.Conv2d(self.options.hidden[-1], channels * patch**2, 1)

    def steps(self, history: Tensor, forcing: Tensor) -> Iterator[Tensor]:
        """Yield the predicted state (B, C, H, W), one lead step after another."""
        known = history.shape[1]
        states: list[State] | None = None
        state = history[:, 0]
        for transition in range(forcing.shape[1]):
            if transition < known:
                state = history[:, transition]
            states, state = self._step(state, forcing[:, transition], states)
            if transition >= known - 1:
                yield state

    def _step(
        self, state: Tensor, forcing: Tensor, states: list[State] | None
    ) -> tuple[list[State], Tensor]:
        """States of the layers, and the next state, after one transition."""
        width, patch = self.options.kernel // 2, self.options.patch
        fields = torch.cat([state, forcing], dim=1)
        patches = nn.functional.pixel_unshuffle(fields, patch)
        padded = nn.functional.pad(patches, [width] * 4).to(self.precision)
        states = self.stack(padded[None], states)
        top = interior(states[-1][0], width)
        after = nn.functional.conv2d(
            top, self.head.weight.to(top.dtype), self.head.bias.to(top.dtype)
        )
        return states, nn.functional.pixel_shuffle(after, patch).to(state.dtype)


@dataclass(frozen=True)
class Unweighted:
    """Mean squared error, every cell and channel alike."""

    def __call__(
        self, prediction: Tensor, target: Tensor, *, weight: Tensor, channels: Sequence[str]
    ) -> Tensor:
        return (prediction - target).square().mean()


def main() -> None:
    """Train, forecast and score every network with every seed; print one table a metric."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="within minutes; says nothing")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--years", type=int, default=4)
    parser.add_argument("--epochs", type=int)
    parser.add_argument("--days", type=int, default=14)
    parser.add_argument("--networks", nargs="+", choices=NETWORKS, default=list(NETWORKS))
    parser.add_argument("--weather", type=Path, help="keep what is simulated here, for other runs")
    parser.add_argument("--keep", type=Path, help="keep scores here, and go on from those that are")
    asked = parser.parse_args()
    years, seeds, epochs = (1, 1, 1) if asked.quick else (asked.years, asked.seeds, asked.epochs)
    console = Console(width=max(120, Console().width))
    changes = [f"training.epochs={epochs}"] if epochs else []
    with working_folder(asked.keep) as folder:
        prepare(folder, asked.weather, years=years)
        scores = pd.concat(
            [
                measure(folder, name, seed, [*NETWORKS[name], *changes], days=asked.days)
                for seed in range(seeds)
                for name in asked.networks
            ]
            + [read_table(folder / "scores" / REFERENCES)],
            ignore_index=True,
        )
    for metric in METRICS:
        console.print(_table(scores, metric))
    console.print(_headline(scores))
    if asked.json:
        asked.json.write_text(json.dumps(_rows(scores), indent=1), encoding="utf-8")


@contextmanager
def working_folder(keep: Path | None) -> Iterator[Path]:
    """One that is kept, or one for as long as this takes."""
    if keep is not None:
        keep.mkdir(parents=True, exist_ok=True)
        yield keep
        return
    with tempfile.TemporaryDirectory() as scratch:
        yield Path(scratch)


def prepare(folder: Path, weather: Path | None, *, years: int) -> None:
    """Run file, catalog and weather: four years, or so, to train on, and one for the rest."""
    (folder / "catalog.yaml").write_text(CATALOG, encoding="utf-8")
    (folder / "run.yaml").write_text(run_text(years=years, workers=1), encoding="utf-8")
    store = weather or folder / "simulated.zarr"
    if not store.exists():
        simulate(store, years=years + 1, start="2001-01-01")
    link = folder / "atmosphere.zarr"
    link.unlink(missing_ok=True)
    link.symlink_to(store.resolve())


def measure(
    folder: Path, network: str, seed: int, settings: Sequence[str], *, days: int
) -> pd.DataFrame:
    """Scores of one network with one seed: as `evaluate` has them, and power, seed and cost.

    What was measured before is read.
    """
    name = f"{re.sub('[^a-z0-9.]+', '-', network.lower())}-{seed}"
    kept = folder / "scores" / f"{name}.csv"
    if kept.exists():
        return read_table(kept)
    kept.parent.mkdir(exist_ok=True)
    config = load_config(folder / "run.yaml", [f"name={name}", f"training.seed={seed}", *settings])
    clock: dict[str, float] = {}
    trained = find_trained(
        runs.train(
            config,
            overwrite=True,  # of a benchmark that was stopped
            under_ray=False,
            observe=lambda record: clock.setdefault(record["event"], time.process_time()),
        )
    )
    used = clock["end"] - clock["start"]
    forecaster, _ = read_forecaster(trained.checkpoint)
    size = sum(p.numel() for p in forecaster.network.parameters())
    print(f"{network}, seed {seed}: {size:,} weights, {used:.0f} CPU s of training", flush=True)
    store = folder / f"{name}.zarr"
    shutil.rmtree(store, ignore_errors=True)
    runs.forecast(trained, store, steps=4 * days)
    measure_references(store, kept.with_name(REFERENCES))
    evaluation = runs.evaluate(
        open_forecasts(store), model=network, baselines=(), evaluators=EVALUATORS
    )
    shutil.rmtree(store)
    spectra = evaluation.tables["power_spectrum"]
    write_table(spectra, kept.with_name(f"{name}.spectra.csv"))
    return write_table(tidy(evaluation).assign(seed=seed, parameters=size, cpu_seconds=used), kept)


def measure_references(store: Path, kept: Path) -> None:
    """Scores of persistence, climatology and the model that made the weather, where not yet there.

    store: forecasts of any network, at the same times.
    """
    if kept.exists():
        return
    forecasts = open_forecasts(store)
    perfect = predictability(
        store.parent / "atmosphere.zarr",
        init_times=list(forecasts["init_time"].values[::3]),
        steps=forecasts.sizes["lead_time"],
        amplitude=INITIAL_ERROR,
    ).assign_attrs(forecasts.attrs)
    limit = runs.evaluate(perfect, model=PERFECT, baselines=(), evaluators=EVALUATORS)
    beside = tidy(runs.evaluate(forecasts, evaluators=EVALUATORS))
    tables = [beside[beside["model"].isin(("persistence", "climatology"))], tidy(limit)]
    write_table(pd.concat(tables).assign(seed=0), kept)


def write_table(table: pd.DataFrame, path: Path) -> pd.DataFrame:
    """The table, once it is in a file, whole or not at all."""
    part = path.with_suffix(".part")
    table.to_csv(part, index=False)
    part.rename(path)
    return table


def read_table(path: Path) -> pd.DataFrame:
    """What `write_table` wrote."""
    table = pd.read_csv(path)
    return table.assign(lead_time=pd.to_timedelta(table["lead_time"]))


def tidy(evaluation: Evaluation) -> pd.DataFrame:
    """Scores, and what share of the true power forecasts have, of resolved wavenumbers."""
    return pd.concat([evaluation.scores, *shares(evaluation.tables["power_spectrum"])])


def shares(spectra: pd.DataFrame) -> list[pd.DataFrame]:
    """By bands of wavelengths, and the least and the greatest of any wavenumber."""
    keys = ["model", "variable", "lead_time"]
    strongest = spectra.groupby(keys, observed=True)["true_power"].transform("max")
    resolved = spectra[spectra["true_power"] > FAINTEST * strongest]
    found = {}
    for band, (shortest, longest) in BANDS_KM.items():
        inside = resolved["wavelength_km"].between(shortest, longest, inclusive="left")
        total = resolved[inside].groupby(keys, observed=True)[["power", "true_power"]].sum()
        found[band] = total["power"] / total["true_power"]
    each = resolved.assign(value=resolved["power"] / resolved["true_power"])
    groups = each.groupby(keys, observed=True)["value"]
    found |= {"least power": groups.min(), "greatest power": groups.max()}
    return [
        share.rename("value").reset_index().assign(metric=metric) for metric, share in found.items()
    ]


def _summary(scores: pd.DataFrame, metric: str) -> pd.DataFrame:
    """Mean, smallest and largest value over the seeds, by channel, lead and model."""
    chosen = scores[(scores["metric"] == metric) & scores["lead_time"].isin(LEADS)]
    level = chosen["level"].map(lambda value: "" if pd.isna(value) else f"{value:g}")
    named = chosen.assign(channel=chosen["variable"].astype(str) + level)
    return named.groupby(["channel", "lead_time", "model"], sort=False)["value"].agg(
        ["mean", "min", "max"]
    )


def _table(scores: pd.DataFrame, metric: str) -> Table:
    summary = _summary(scores, metric)
    models = list(dict.fromkeys(scores["model"]))
    table = Table("channel", "lead", *models, title=metric, title_justify="left", box=None)
    for (channel, lead), rows in summary.groupby(level=[0, 1], sort=False):
        cells = [
            _cell(*rows.loc[(channel, lead, model)]) if (channel, lead, model) in rows.index else ""
            for model in models
        ]
        table.add_row(channel, f"{lead / pd.Timedelta('1h'):.0f}h", *cells)
    return table


def _headline(scores: pd.DataFrame) -> Table:
    """Weights, processor seconds of training, use, and power at the end, by network."""
    last = scores["lead_time"].max()
    table = Table(
        *("network", "weights", "CPU s", "days of ACC > 0.6 (z500)"),
        *BANDS_KM,
        title=f"cost, use, and least and greatest power of any channel at {last.days} days",
        title_justify="left",
        box=None,
    )
    for model, rows in scores[scores["parameters"].notna()].groupby("model", sort=False):
        seconds = rows.groupby("seed")["cpu_seconds"].first()
        days = rows[rows["metric"] == "acc"].groupby("seed")[scores.columns].apply(useful_days)
        at_end = rows[rows["lead_time"] == last].groupby(["metric", "variable"])["value"].mean()
        table.add_row(
            str(model),
            f"{rows['parameters'].iloc[0]:,.0f}",
            _cell(seconds.mean(), seconds.min(), seconds.max()),
            _cell(days.mean(), days.min(), days.max()),
            *(f"{at_end[band].min():.2f} to {at_end[band].max():.2f}" for band in BANDS_KM),
        )
    return table


def useful_days(acc: pd.DataFrame) -> float:
    """Until when the anomaly correlation of z500 stays above 0.6."""
    leads = useful_lead(acc)
    z500 = leads[(leads["variable"] == "z") & (leads["level"] == 500)]["useful_lead"]
    return float(z500.iloc[0] / pd.Timedelta("1D"))


def _cell(mean: float, low: float, high: float) -> str:
    return f"{mean:.3g}" + (f" [{low:.3g}, {high:.3g}]" if high > low else "")


def _rows(scores: pd.DataFrame) -> list[dict[str, object]]:
    """Each network's mean against the first one's, by metric, channel and lead."""
    rows: list[dict[str, object]] = []
    first = next(model for model in scores["model"] if model in NETWORKS)
    for metric in METRICS:
        summary = _summary(scores, metric)["mean"]
        for (channel, lead, model), value in summary.items():
            rows.append(
                {
                    "case": f"{metric} {channel} {lead / pd.Timedelta('1h'):.0f}h",
                    "subject": model,
                    "value": value,
                    "unit": metric,
                    "against": first,
                    "ratio": value / summary[(channel, lead, first)],
                }
            )
    return rows


if __name__ == "__main__":
    main()
