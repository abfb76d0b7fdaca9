"""Does the loss keep forecasts from blurring? Power spectra after training with MSE and with AMSE.

One network, one seed, the same windows of simulated weather; only the loss differs. Forecasts of a
year that none has seen are compared with the truth, band by band of wavelengths along latitude
circles: power above 1 is too much, below 1 is blur.

    python benchmarks/spectra.py [--quick] [--json FILE] [--years 2] [--epochs 2]

Needs climlstm-spectral.
"""

import argparse
import json
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd
from rich.console import Console
from rich.table import Table

from climlstm import runs
from climlstm.config import PluginChoice, load_config
from climlstm.demo import CATALOG, run_text
from climlstm.forecasting import open_forecasts
from climlstm.runs import find_trained
from climlstm.simulation.simulate import simulate

LOSSES = {
    "MSE": "{name: mse}",
    "AMSE": "{name: amse}",
    "AMSE, factor truth": "{name: amse, options: {factor: truth}}",
}
CHANNELS = ("z500", "msl", "u10")
LEADS = ("1d", "3d", "5d")
BANDS_KM = {
    "above 5000 km": (5000, np.inf),
    "2500-5000 km": (2500, 5000),
    "below 2500 km": (0, 2500),
}


def main() -> None:
    """Train with every loss, forecast, and print power and RMSE relative to truth and MSE."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="within a minute or two; says nothing")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--years", type=int, default=2)
    parser.add_argument("--epochs", type=int, default=2)
    asked = parser.parse_args()
    years, epochs, width = (1, 1, 8) if asked.quick else (asked.years, asked.epochs, 64)
    console = Console()
    with tempfile.TemporaryDirectory() as scratch:
        rows = measure(Path(scratch), years=years, epochs=epochs, width=width, console=console)
    for (what, channel), part in rows.groupby(["what", "channel"], sort=False):
        table = Table("lead", *LOSSES, title=f"{what}, {channel}", title_justify="left", box=None)
        for lead, values in part.groupby("lead", sort=False):
            found = values.set_index("loss")["value"]
            table.add_row(lead, *(f"{found[loss]:.3g}" for loss in LOSSES))
        console.print(table)
    if asked.json:
        asked.json.write_text(json.dumps(_as_json(rows), indent=1), encoding="utf-8")


def measure(folder: Path, *, years: int, epochs: int, width: int, console: Console) -> pd.DataFrame:
    """Columns what, channel, lead, loss and value: shares of the true power, and RMSE."""
    (folder / "catalog.yaml").write_text(CATALOG, encoding="utf-8")
    (folder / "run.yaml").write_text(run_text(years=years, workers=1), encoding="utf-8")
    simulate(folder / "atmosphere.zarr", years=years + 1, start="2001-01-01")
    options = f"{{hidden: [{width}, {width}], blocks: 0, diffusion: false, patch: 2}}"
    tables = []
    for number, (label, loss) in enumerate(LOSSES.items()):
        settings = [f"name=loss-{number}", f"training.loss={loss}", f"model.options={options}"]
        config = load_config(folder / "run.yaml", [*settings, f"training.epochs={epochs}"])
        began = time.monotonic()
        trained = find_trained(runs.train(config, under_ray=False))
        console.print(f"{label}: trained in {time.monotonic() - began:.0f} s")
        store = folder / f"{number}.zarr"
        runs.forecast(trained, store)
        spectra = PluginChoice(name="power_spectrum", options={"lead_times": LEADS})
        found = runs.evaluate(
            open_forecasts(store),
            evaluators=[spectra, PluginChoice(name="rmse")],
            baselines=(),
            model=label,
        )
        tables += [_shares(found.tables["power_spectrum"]), _errors(found.scores)]
    return pd.concat(tables, ignore_index=True)


def _shares(spectra: pd.DataFrame) -> pd.DataFrame:
    """Power over true power, by band."""
    rows = []
    for (channel, lead), spectrum in spectra.groupby(["variable", "lead_time"], sort=False):
        for band, (shortest, longest) in BANDS_KM.items():
            inside = spectrum["wavelength_km"].between(shortest, longest, inclusive="left")
            total = spectrum.loc[inside, ["power", "true_power"]].sum()
            row = {"what": f"share of the true power, {band}", "channel": channel}
            row |= {"lead": _days(lead), "value": total["power"] / total["true_power"]}
            rows.append(row | {"loss": spectrum["model"].iloc[0]})
    table = pd.DataFrame(rows)
    return table[table["channel"].isin(CHANNELS)]


def _errors(scores: pd.DataFrame) -> pd.DataFrame:
    level = scores["level"].map(lambda value: "" if pd.isna(value) else f"{value:g}")
    table = scores.assign(channel=scores["variable"] + level, what="rmse", loss=scores["model"])
    table = table.assign(lead=scores["lead_time"].map(_days))
    table = table[table["channel"].isin(CHANNELS) & table["lead"].isin(LEADS)]
    return table[["what", "channel", "lead", "loss", "value"]]


def _days(lead: pd.Timedelta) -> str:
    return f"{lead / pd.Timedelta('1D'):g}d"


def _as_json(rows: pd.DataFrame) -> list[dict[str, object]]:
    keys = ["what", "channel", "lead"]
    reference = rows[rows["loss"] == "MSE"].set_index(keys)["value"]
    return [
        {
            "case": f"{row.what}, {row.channel} {row.lead}",
            "subject": row.loss,
            "value": row.value,
            "unit": "1" if row.what != "rmse" else "units of the channel",
            "against": "MSE",
            "ratio": row.value / reference[(row.what, row.channel, row.lead)],
        }
        for row in rows.itertuples()
    ]


if __name__ == "__main__":
    main()
