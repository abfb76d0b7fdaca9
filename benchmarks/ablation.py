"""What in network and training earns its place? The deep ConvLSTM of `skill.py`, one change a time.

Each variant trains on the same simulated weather, at half the learning rate of `skill.py`, and is
scored as there, on forecasts of fourteen days in a year that none has seen.

    python benchmarks/ablation.py [--quick] [--json FILE] [--seeds 1] [--years 4] [--days 14]
                                  [--variants NAME ...] [--keep DIR] [--weather STORE]

With --keep, what a variant scored is kept as soon as it is there; the same command goes on.

Measured with one seed, CPU seconds of training in brackets: RMSE at 1, 3 and 5 days over that of
the unchanged network, mean over six channels; days of ACC of z500 > 0.6; power at 14 days, least to
greatest of the channels, of waves above 5000 km, of 2500 to 5000 km, and below. The same network
trained again on another day differed by up to 0.02 days and 0.13 of power, so less says nothing.

    unchanged (108)                          1     1     1     3.88  0.84-1.06  0.86-0.98  0.55-2.01
  training
    twice the learning rate (111)            0.86  0.90  0.94  4.43  0.78-1.02  0.76-0.82  0.56-2.46
    four times the learning rate (115)       0.92  0.95  0.97  4.17  0.78-1.09  0.80-0.91  0.54-3.12
    half the learning rate (147)             1.19  1.12  1.06  3.32  0.91-1.53  0.81-1.02  0.36-1.47
    rise over half of the training (120)     1.03  1.03  1.02  3.69  0.83-1.19  0.75-0.97  0.51-1.80
    no running mean (126)                    0.99  1.00  1.00  3.92  0.85-1.08  0.85-0.95  0.58-1.97
    running mean 0.95 (127)                  1.00  1.00  1.00  3.90  0.85-1.07  0.86-0.97  0.57-2.00
    horizon 1 (50)                           1.02  1.09  1.11  3.51  1.19-1.66  0.95-1.19  1.05-2.94
    horizon 8 (177)                          1.01  0.94  0.93  4.18  0.53-0.75  0.51-0.67  0.28-1.41
    scheduled sampling (113)                 1.02  1.03  1.03  3.77  0.92-1.18  0.99-1.08  0.62-2.07
    input noise 0.1 (94)                     1.01  0.99  0.97  3.89  0.54-0.77  0.55-0.73  0.30-1.33
    balance of states (94)                   1.13  1.12  1.07  3.35  0.87-1.66  0.67-0.76  0.47-2.02
  network
    blocks 1 (106)                           1.03  1.02  1.02  3.69  0.73-1.06  0.73-0.89  0.48-2.11
    blocks 4 (135)                           0.98  1.00  1.00  3.92  0.74-1.11  0.62-0.77  0.43-1.88
    no blocks, two layers (63)               1.18  1.29  1.31  2.82  2.47-5.33  1.18-1.87  0.95-7.33
    no blocks, four layers (131)             1.19  1.40  1.56  2.67  11.5-20.3  3.28-5.40  3.26-19.9
    history 2 (113)                          0.95  1.04  1.10  3.83  1.51-1.89  0.97-1.20  1.23-3.01
    encoder-forecaster, history 2 (144)      0.93  1.16  1.42  3.44  10.4-33.4  2.15-3.68  1.86-10.9
    peephole (134)                           1.00  1.00  1.00  3.89  0.86-1.07  0.82-0.91  0.50-1.96
    tendency unscaled (124)                  0.89  0.94  1.00  4.11  1.35-1.81  0.89-1.26  0.85-10.7
    patch 4 (77; 1.98 M weights)             1.13  1.06  1.03  3.66  0.67-0.90  0.76-0.95  0.76-12
    kernel 5 (98)                            1.06  1.03  1.01  3.78  0.77-1.10  0.73-0.84  0.45-2.41
  inputs
    no season (125)                          0.99  0.99  0.99  3.90  0.72-0.95  0.71-0.84  0.51-1.89
    season and sun (152)                     0.99  0.99  0.99  3.91  0.79-1.06  0.65-0.71  0.51-2.21
    no static fields (130)                   0.99  1.00  1.00  3.87  0.58-0.89  0.56-0.73  0.31-1.24
  loss
    AMSE, blend 0.2 (94)                     1.02  1.01  1.01  3.87  0.88-1.06  0.79-0.89  0.59-2.10
    AMSE, horizon 8 (215)                    1.06  0.99  0.98  3.95  0.73-0.92  0.75-0.92  0.59-1.53
    AMSE, factor truth, horizon 8 (315)      1.04  1.02  1.04  4.05  1.18-1.32  1.07-1.21  1.16-3.76
    AMSE, factor truth, blend 0.6, horizon 8 1.01  0.97  0.98  4.17  0.82-1.08  0.84-0.87  0.70-2.51
      (248)
    CRPS of two members with noise           1.11  1.12  1.13  3.57  1.29-1.37  1.10-1.33  1.42-4.27
      (178; one member of it)
    CRPS, horizon 8 (513)                    1.20  1.15  1.14  3.41  1.00-1.25  1.04-1.26  6.95-57
  loss, at twice the learning rate
    AMSE, factor truth (121)                 0.95  1.01  1.06  4.03  1.33-1.59  1.19-1.33  1.31-4.39
    AMSE, factor truth, blend 0.5 (121)      0.89  0.95  0.99  4.21  0.89-1.08  0.78-0.88  0.91-3.17
    AMSE, factor truth, blend 0.7, horizon 8 0.91  0.91  0.93  4.52  0.76-1.00  0.78-0.84  0.69-3.26
      (254)

On another machine, where the deep network of `skill.py` takes 172 s without diffusion and has 4.37
days; RMSE over that one's, all means of three seeds with the settings of `skill.py`:

    diffusion (172)                          0.96  0.97  0.97  4.38  0.48-0.70  0.54-0.75  0.30-0.40
    diffusion, AMSE, factor truth, horizon 8 1.03  0.98  0.99  4.49  0.75-0.91  0.82-0.89  0.76-1.07
      (369)

What is kept: twice the learning rate, which `skill.py` and the demo have now, and costs nothing;
learnt diffusion; residual blocks, scaled tendencies, patches of two, kernels of three, one known
step, weighing by tendencies, training over several steps. Static fields and season do not matter to
the errors of this atmosphere, but without static fields forecasts become smooth. Forecasts of
squared errors are smooth where phases cannot be foreseen; the more so, the further ahead training
looks. AMSE charged with the true power gives that back, and `blend` says how much: over eight steps
all bands above 2500 km come within 20 % of the truth, at smaller errors than over four steps of
squared errors. Shorter waves, four cells and less, stay within 30 %, but for z200, which has little
power there: each step leaves noise in the smallest waves, which adds up, and diffusion takes it
away. Noise on the inputs makes forecasts smooth, so it is no option of climlstm; scheduled sampling
keeps them sharp but costs skill, and peepholes change nothing.
"""

import argparse
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import pandas as pd
import torch
from pydantic import Field
from rich.console import Console
from rich.table import Table
from skill import BANDS_KM, measure, prepare, useful_days, working_folder
from torch import Tensor

from climlstm.data.windows.stream import Window
from climlstm.model.convlstm import ConvLSTM
from climlstm.training.learner import Learner

BASE = "unchanged"
RATE = "training.learning_rate=2e-3"

NOISY = "model.name=__main__:NoisyInputs"


def options(**changed: object) -> list[str]:
    """Options of the network, and what is changed; the learning rate."""
    chosen = {"hidden": [56], "blocks": 2, "diffusion": False, "patch": 2} | changed
    return [f"model.options={json.dumps(chosen)}", RATE]


VARIANTS = {
    BASE: options(),
    "history 2": [*options(), "model.history=2"],
    "history 4": [*options(), "model.history=4"],
    "encoder-forecaster, history 2": [*options(shared=False), "model.history=2"],
    "no blocks, one layer": options(hidden=[118], blocks=0),
    "no blocks, two layers": options(hidden=[64, 64], blocks=0),
    "no blocks, four layers": options(hidden=[43, 43, 43, 43], blocks=0),
    "blocks 1": options(hidden=[67], blocks=1),
    "blocks 4": options(hidden=[44], blocks=4),
    "blocks 2, two layers": options(hidden=[48, 48]),
    "twice as wide": options(hidden=[112]),
    "patch 1": options(patch=1),
    "patch 4": options(hidden=[112], patch=4),
    "kernel 5": options(hidden=[34], kernel=5),
    "peephole": options(peephole=True),
    "diffusion, twice the learning rate": [
        *options(diffusion=True),
        "training.learning_rate=4e-3",
    ],
    "diffusion, twice the learning rate, AMSE, factor truth": [
        *(*options(diffusion=True), "training.learning_rate=4e-3"),
        "training.loss={name: amse, options: {factor: truth}}",
    ],
    "diffusion, twice the learning rate, AMSE, factor truth, blend 0.85, horizon 8": [
        *(*options(diffusion=True), "training.learning_rate=4e-3", "training.horizon=8"),
        "training.loss={name: amse, options: {factor: truth, blend: 0.85}}",
    ],
    "horizon 1": [*options(), "training.horizon=1"],
    "horizon 8": [*options(), "training.horizon=8"],
    "horizon 12": [*options(), "training.horizon=12"],
    "horizon 4 from the start": [*options(), "training.ramp=0"],
    "horizon 8 from the start": [*options(), "training.horizon=8", "training.ramp=0"],
    "input noise 0.1": [NOISY, *options(input_noise=0.1)],
    "input noise 0.2": [NOISY, *options(input_noise=0.2)],
    "tendency unscaled": ["model.name=__main__:Unscaled", *options()],
    "no running mean": [*options(), "training.ema=0"],
    "running mean 0.95": [*options(), "training.ema=0.95"],
    "twice the learning rate": [*options(), "training.learning_rate=4e-3"],
    "four times the learning rate": [*options(), "training.learning_rate=8e-3"],
    "twice the learning rate, AMSE, factor truth, blend 0.5": [
        *(*options(), "training.learning_rate=4e-3"),
        "training.loss={name: amse, options: {factor: truth, blend: 0.5}}",
    ],
    "twice the learning rate, AMSE, factor truth, blend 0.7, horizon 8": [
        *(*options(), "training.learning_rate=4e-3", "training.horizon=8"),
        "training.loss={name: amse, options: {factor: truth, blend: 0.7}}",
    ],
    "twice as wide, twice the learning rate": [
        *options(hidden=[112]),
        "training.learning_rate=4e-3",
    ],
    "half the learning rate": [*options(), "training.learning_rate=1e-3"],
    "rise over half of the training": [*options(), "training.warmup=0.5"],
    "no season": [*options(), "data.forcing=[]"],
    "season and sun": [*options(), "data.forcing=[season, cos_zenith]"],
    "no static fields": [*options(), "data.static=[]"],
    "AMSE": [*options(), "training.loss.name=amse"],
    "AMSE, horizon 8": [*options(), "training.loss.name=amse", "training.horizon=8"],
    "AMSE, factor truth": [*options(), "training.loss={name: amse, options: {factor: truth}}"],
    "AMSE, factor truth, horizon 8": [
        *options(),
        *("training.loss={name: amse, options: {factor: truth}}", "training.horizon=8"),
    ],
    "AMSE, factor truth, blend 0.6, horizon 8": [
        *options(),
        *("training.loss={name: amse, options: {factor: truth, blend: 0.6}}", "training.horizon=8"),
    ],
    "AMSE, horizon 8, twice as wide": [
        *options(hidden=[112]),
        *("training.loss.name=amse", "training.horizon=8"),
    ],
    "AMSE, blend 0.2": [*options(), "training.loss={name: amse, options: {blend: 0.2}}"],
    "AMSE, input noise 0.03": [NOISY, *options(input_noise=0.03), "training.loss.name=amse"],
    "AMSE, input noise 0.1": [NOISY, *options(input_noise=0.1), "training.loss.name=amse"],
    "CRPS of two members with noise": [
        *options(),
        *("model.noise=2", "training.members=2", "training.loss.name=crps"),
        *("training.batch_size=8", "training.learning_rate=1.5e-3"),
    ],
    "CRPS of two members with noise, horizon 8": [
        *options(),
        *("model.noise=2", "training.members=2", "training.loss.name=crps", "training.horizon=8"),
        *("training.batch_size=8", "training.learning_rate=1.5e-3"),
    ],
    "scheduled sampling": ["model.name=__main__:ScheduledSampling", *options()],
    "balance of states": [*options(), "training.balance=state"],
    "two epochs": [*options(), "training.epochs=2"],
}
"""Settings by name. Width is chosen so that the number of weights stays about the same, where the
change is not one of size."""

CASE = ["variable", "level", "lead_time", "region"]
ERRORS_AT = (1, 3, 5)
"""Days; RMSE there is given relative to the network that is not changed, mean over all channels."""


class NoisyInputs(ConvLSTM):
    """Learns from known states with white noise, and is to forecast what comes after them."""

    @dataclass(frozen=True)
    class Options(ConvLSTM.Options):
        input_noise: Annotated[float, Field(ge=0)] = 0.0
        """Standard deviation of the noise, in those of the state."""

    def steps(self, history: Tensor, forcing: Tensor) -> Iterator[Tensor]:
        """As `ConvLSTM.steps`."""
        assert isinstance(self.options, NoisyInputs.Options)
        if self.training:
            history = history + self.options.input_noise * torch.randn_like(history)
        return super().steps(history, forcing)


class ScheduledSampling(ConvLSTM):
    """Learns from its own predictions more and more often, from true states at first (Bengio et al.
    2015, arXiv:1506.03099), from one known state."""

    truth: Tensor | None = None
    """(B, L, C, H, W), of the windows that are being learnt."""
    share: float = 0.0
    """Of them, that go on from it."""

    def steps(self, history: Tensor, forcing: Tensor) -> Iterator[Tensor]:
        """As `ConvLSTM.steps`."""
        if not self.training or self.truth is None:
            yield from super().steps(history, forcing)
            return
        states, state = None, history[:, -1]
        weights = self.forecaster.prepared(self.precision)
        for lead in range(forcing.shape[1]):
            if lead:
                taught = torch.rand(len(state), 1, 1, 1) < self.share
                state = torch.where(taught, self.truth[:, lead - 1], state)
            x = self._inputs(torch.cat([state, forcing[:, lead]], dim=1)[:, None])
            states = self.forecaster(x, states, weights)
            features, halo = self._features(x[-1], states)
            state = self.head(state, features, halo=halo)
            yield state


def teach(learner: Learner, part: slice, window: Window, *, step: int, factor: float) -> Tensor:
    """`Learner._backward`, where the network may want to know the truth."""
    network = learner.forecaster.network
    if isinstance(network, ScheduledSampling):
        network.truth, network.share = window.target[part], 1 - step / learner.steps
    return _backward(learner, part, window, step=step, factor=factor)


_backward, Learner._backward = Learner._backward, teach  # type: ignore[method-assign]


class Unscaled(ConvLSTM):
    """Its head gives changes in standard deviations of the state."""

    def __init__(self, *sizes: int, tendency_scale: Tensor | None = None, **rest: object) -> None:
        super().__init__(*sizes, **rest)  # type: ignore[arg-type]


def main() -> None:
    """Train, forecast and score every variant; print one table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="within minutes; says nothing")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--years", type=int, default=4)
    parser.add_argument("--days", type=int, default=14)
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, default=list(VARIANTS))
    parser.add_argument("--weather", type=Path, help="keep what is simulated here, for other runs")
    parser.add_argument("--keep", type=Path, help="keep scores here, and go on from those that are")
    asked = parser.parse_args()
    years = 1 if asked.quick else asked.years
    chosen = [BASE, "input noise 0.1"] if asked.quick else asked.variants
    with working_folder(asked.keep) as folder:
        prepare(folder, asked.weather, years=years)
        scores = pd.concat(
            [
                measure(folder, name, seed, VARIANTS[name], days=asked.days)
                for seed in range(asked.first_seed, asked.first_seed + asked.seeds)
                for name in chosen
            ],
            ignore_index=True,
        )
    rows = summary(scores)
    table = Table(*rows.columns, box=None)
    for row in rows.itertuples(index=False):
        table.add_row(*map(str, row))
    Console(width=max(140, Console().width)).print(table)
    if asked.json:
        asked.json.write_text(json.dumps(_as_json(scores), indent=1), encoding="utf-8")


def figures(scores: pd.DataFrame) -> pd.DataFrame:
    """What counts, by variant and seed."""
    found = []
    errors = scores[scores["metric"] == "rmse"].set_index([*CASE, "seed"])
    reference = errors.loc[errors["model"] == BASE, "value"]
    for (model, seed), own in scores.groupby(["model", "seed"], sort=False):
        rmse = own[own["metric"] == "rmse"].set_index([*CASE, "seed"])["value"]
        against = rmse / reference.reindex(rmse.index)
        row: dict[str, object] = {"variant": model, "seed": seed}
        row |= {"weights": own["parameters"].iloc[0], "CPU s": own["cpu_seconds"].iloc[0]}
        for days in ERRORS_AT:
            at = against.index.get_level_values("lead_time") == pd.Timedelta(days=days)
            row[f"RMSE {days} d"] = against[at].mean()
        row["useful days"] = useful_days(own[own["metric"] == "acc"])
        last = own[own["lead_time"] == own["lead_time"].max()].set_index("metric")["value"]
        for band in BANDS_KM:
            row[f"least {band}"], row[f"greatest {band}"] = last[[band]].min(), last[[band]].max()
        found.append(row)
    return pd.DataFrame(found)


def summary(scores: pd.DataFrame) -> pd.DataFrame:
    """As text, the mean over the seeds and its range, a row for each variant."""
    found = figures(scores).drop(columns="seed")
    groups = found.groupby("variant", sort=False)
    mean, low, high = groups.mean(), groups.min(), groups.max()
    cells = {
        column: [
            _cell(*values) for values in zip(mean[column], low[column], high[column], strict=True)
        ]
        for column in mean
    }
    return pd.DataFrame({"variant": mean.index, **cells})


def _cell(mean: float, low: float, high: float) -> str:
    if mean > 1000:
        return f"{mean:,.0f}"
    return f"{mean:.3g}" + (f" [{low:.3g}, {high:.3g}]" if high > low else "")


def _as_json(scores: pd.DataFrame) -> list[dict[str, object]]:
    """Means over the seeds, against the network that is not changed."""
    means = figures(scores).drop(columns="seed").groupby("variant", sort=False).mean()
    return [
        {
            "case": case,
            "subject": variant,
            "value": value,
            "unit": "1",
            "against": BASE,
            "ratio": value / means.loc[BASE, case],
        }
        for variant, row in means.iterrows()
        for case, value in row.items()
    ]


if __name__ == "__main__":
    main()
