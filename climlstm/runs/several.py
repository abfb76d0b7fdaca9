"""Several runs as one forecast, and the training of runs that differ by their seed alone."""

import functools
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import xarray as xr

from climlstm.config import Config
from climlstm.errors import ConfigError, DataError
from climlstm.files import delete_whole, lock, write_text, writing
from climlstm.forecasting import open_forecasts
from climlstm.forecasting.joining import join_members, members_of_runs
from climlstm.forecasting.store import REQUEST, is_same_request
from climlstm.runs.clusters import spread_over
from climlstm.runs.trained import Trained, as_trained, origin_of
from climlstm.runs.training import check_untrained, train


def train_seeds(
    config: Config, seeds: int, *, address: str | None = None, **options: Any
) -> list[Path | str]:
    """Train a run several times, with other seeds; their best checkpoints.

    The runs are called NAME-1, NAME-2, ..., with the run file's seed, the one after it, and so on.
    address: of a Ray cluster, on which they are trained side by side, a process each; None: one
        after another, with the workers of the run file.
    options: as `train` takes them; with an address `resume` and `overwrite` alone count.
    Raises ConfigError where one of the runs has been trained before and neither is asked for.
    """
    runs = [
        config.model_copy(
            update={
                "name": f"{config.name}-{number + 1}",
                "training": config.training.model_copy(
                    update={"seed": config.training.seed + number}
                ),
            }
        )
        for number in range(seeds)
    ]
    overwrite = bool(options.get("overwrite"))
    if not overwrite and not options.get("resume"):
        for run in runs:
            check_untrained(run)
    if address is None:
        return [train(run, **options) for run in runs]
    if config.cluster.workers != 1:
        raise ConfigError(
            f"Runs side by side are trained by a process each, but cluster.workers is "
            f"{config.cluster.workers}. Set it to 1 with --workers 1, or leave --address out."
        )
    with spread_over(address, gpu=config.cluster.gpu) as executor:
        assert executor is not None
        # A task whose host was lost is called again, and goes on from its last checkpoint.
        one = functools.partial(train, under_ray=False, resume=not overwrite, overwrite=overwrite)
        tasks = [executor.submit(one, run) for run in runs]
        return [task.result() for task in tasks]


def over_several(forecast: Callable[..., xr.Dataset]) -> Callable[..., xr.Dataset]:
    """Let a function that forecasts with one run take several, whose forecasts become members."""

    @functools.wraps(forecast)
    def wrapped(trained: Any, out: str | Path | None = None, **options: Any) -> xr.Dataset:
        if not isinstance(trained, list | tuple):
            return forecast(trained, out, **options)
        if len(trained) == 1:
            return forecast(trained[0], out, **options)
        runs = _by_name(trained)
        if out is None:
            return members_of_runs({n: forecast(run, **options) for n, run in runs.items()})
        _forecast_into(runs, Path(out), forecast, **options)
        return open_forecasts(out)

    return wrapped


def _by_name(places: Sequence[Trained | str | Path]) -> dict[str, Trained]:
    """Runs by their names, numbered where a name occurs again."""
    if not places:
        raise ConfigError("Name a run or more to forecast with.")
    runs: dict[str, Trained] = {}
    for number, place in enumerate(places, start=1):
        found = as_trained(place)
        name = found.config.name
        runs[name if name not in runs else f"{name} ({number})"] = found
    return runs


def _forecast_into(
    runs: Mapping[str, Trained], out: Path, forecast: Callable[..., Any], **options: Any
) -> None:
    """Forecast with each run into a store of its own, join them into one, and delete those.

    After an interruption the same call goes on; another one begins anew.
    """
    if out.exists():
        raise DataError(f"{out} exists already. Give another --out, or delete it.")
    parts = out.with_name(out.name + ".runs")
    with lock(out, f"The forecast {out} is being written"), writing(out):
        request = {
            "runs": {name: origin_of(found)["digest"] for name, found in runs.items()},
            "options": {key: str(value) for key, value in sorted(options.items())},
        }
        if not is_same_request(parts, request):
            if parts.exists():
                delete_whole(parts)
            parts.mkdir(parents=True)
            write_text(parts / REQUEST, json.dumps(request))
        stores = {name: parts / f"{number}.zarr" for number, name in enumerate(runs, start=1)}
        for name, found in runs.items():
            if not stores[name].exists():
                forecast(found, stores[name], **options)
        join_members(stores, out)
        delete_whole(parts)
