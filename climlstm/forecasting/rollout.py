"""Rollouts: forecasts from a few initialisations side by side, some lead steps at a time.

What is in memory does not grow with the number of steps. A rollout goes on from what it left after
any of its pieces, to the last bit; so does one that a killed process had begun.
"""

import math
from collections import deque
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
import xarray as xr
from numpy.typing import NDArray
from torch import Tensor

from climlstm.data.cube.forcing import forcing_fields, forcings_of
from climlstm.forecasting.ensemble import Ensemble, Times
from climlstm.forecasting.forecast import check, histories, labelled
from climlstm.forecasting.outside import Outside
from climlstm.model.forecaster import Forecaster
from climlstm.model.given import with_given
from climlstm.model.noise import draw_noise

Flock = dict[str, Tensor]
"""Tensors (B, ...) from which members that are computed together go on: `history`, the last states,
normalised; `noise` of the transitions between them; and the memory of the network."""

Going = dict[str, Tensor]
"""A rollout that goes on: `FIRST`, and the tensors of each flock as NUMBER.NAME."""

FIRST = "first"
"""Name of the number of lead steps that are done."""

PIECE_BYTES = 1 << 26
"""States of one member in a piece, about."""

MOST_LEADS = 512
"""Lead steps in a piece at most."""


def leads_together(forecaster: Forecaster, steps: int) -> int:
    """Lead steps in a piece; all, where the network cannot go on from its last states.

    It depends on nothing that could differ when a rollout is begun again.
    """
    if not forecaster.goes_on:
        return steps
    state = 4 * len(forecaster.spec.channels) * math.prod(forecaster.spec.grid.shape)
    return min(steps, MOST_LEADS, max(1, PIECE_BYTES // state))


def forecast_batches(
    forecaster: Forecaster,
    cube: xr.Dataset,
    *,
    init_times: Times,
    steps: int,
    batch_size: int = 16,
    ensemble: Ensemble = Ensemble(members=1),  # noqa: B008 (it is frozen)
    outside: Outside = Outside(),  # noqa: B008 (it is frozen)
) -> Iterator[xr.Dataset]:
    """Yield forecasts of a few initialisations at a time, in physical units.

    cube: any that has the forecaster's state, grid and step up to each initialisation, and given
        channels that are observed up to the last lead.
    batch_size: initialisations in one dataset, and members that the network computes together.
    ensemble: with several members there is a dimension `realization`, after `init_time`.
    outside: where channels given from outside come from, besides the cube.
    Raises DataError where the cube does not fit, or an initialisation lacks its history,
    ConfigError where all members would be alike.
    """
    outside.check(forecaster.spec, cube, init_times, steps)
    options: dict[str, Any] = {"batch_size": batch_size, "ensemble": ensemble, "outside": outside}
    for first in range(0, len(init_times), batch_size):
        inits = init_times[first : first + batch_size]
        made = rollout(forecaster, cube, inits, steps=steps, **options)
        pieces = [forecasts for forecasts, _ in made]
        yield pieces[0] if len(pieces) == 1 else xr.concat(pieces, "lead_time")


def rollout(
    forecaster: Forecaster,
    cube: xr.Dataset,
    inits: Times,
    *,
    steps: int,
    batch_size: int,
    ensemble: Ensemble,
    outside: Outside,
    going: Going | None = None,
) -> Iterator[tuple[xr.Dataset, Going]]:
    """Yield forecasts from a few initialisations, some leads after others, and how to go on.

    going: what a rollout from the same initialisations left; None: it begins.
    Other arguments and errors: see `forecast_batches`.
    """
    check(forecaster.spec, cube)
    ensemble.check(forecaster.spec)
    going = going or _begun(forecaster, cube, inits, ensemble, batch_size)
    while (first := int(going[FIRST])) < steps:
        leads = min(leads_together(forecaster, steps), steps - first)
        fields = _fields(forecaster, cube, inits, first, leads, outside)
        states, left, member = [], {FIRST: torch.tensor(first + leads)}, 0
        for number in range(sum(key.endswith(".history") for key in going)):
            flock = {k.partition(".")[2]: t for k, t in going.items() if k.startswith(f"{number}.")}
            members = np.arange(member, member + len(flock["history"]) // len(inits))
            pairs = np.repeat(inits, members.size), np.tile(members, inits.size)
            seeds = (ensemble.seed, first) if first else (ensemble.seed,)
            ahead, flock = _ahead(forecaster, fields, leads, flock, pairs, seeds)
            states.append(ahead.unflatten(0, (len(inits), -1)))
            left |= {f"{number}.{name}": tensor for name, tensor in flock.items()}
            member += members.size
        going, whole = left, torch.cat(states, dim=1)
        chosen = whole if ensemble.members > 1 else whole[:, 0]
        yield labelled(chosen, forecaster.spec, inits, first), going


def _begun(
    forecaster: Forecaster, cube: xr.Dataset, inits: Times, ensemble: Ensemble, batch_size: int
) -> Going:
    """The rollout before its first step."""
    known = histories(forecaster.spec, cube, inits)
    device = forecaster.normaliser.mean.device
    several = max(1, batch_size // len(inits))
    going = {FIRST: torch.tensor(0)}
    for number, first in enumerate(range(0, ensemble.members, several)):
        members = np.arange(first, min(first + several, ensemble.members))
        states = np.repeat(known, members.size, axis=0)
        if ensemble.perturbations is not None:
            pairs = np.repeat(inits, members.size), np.tile(members, inits.size)
            states = states + ensemble.perturbations.draw(ensemble.seed, *pairs)
        with torch.inference_mode():
            history = forecaster.normaliser.normalise(torch.from_numpy(states).to(device))
        going[f"{number}.history"] = history
    return going


@torch.inference_mode()
def _ahead(
    forecaster: Forecaster,
    fields: Tensor,
    leads: int,
    flock: Flock,
    pairs: tuple[Times, NDArray[np.int_]],
    seeds: Sequence[int],
) -> tuple[Tensor, Flock]:
    """The next states of a flock (B, L, C, H, W), in physical units, and what it goes on from.

    fields: forcing of each initialisation. pairs, seeds: initialisations and members, for noise.
    """
    device = forecaster.normaliser.mean.device
    flock = {name: each.to(device) for name, each in flock.items()}
    forcing = fields.to(device).repeat_interleave(len(flock["history"]) // len(fields), dim=0)
    noise = flock.pop("noise", None)
    if forecaster.spec.noise:
        new = forcing.shape[1] if noise is None else leads
        shape = (new, forecaster.spec.noise, *forcing.shape[-2:])
        drawn = draw_noise(seeds, pairs[0], pairs[1].tolist(), shape, device=device)
        noise = drawn if noise is None else torch.cat([noise, drawn], dim=1)
    history = flock.pop("history")
    last = deque(history.unbind(1), maxlen=forecaster.spec.history)
    more = {"memory": flock} if forecaster.goes_on else {}
    states = []
    for state in forecaster.steps(history, forcing, noise, **more):
        last.append(forecaster.without_outputs(state))
        states.append(forecaster.denormalise(state).cpu())
    left = {name: tensor.contiguous() for name, tensor in flock.items()}
    left["history"] = torch.stack(list(last), dim=1)
    if noise is not None:
        left["noise"] = noise[:, leads:].clone()
    return torch.stack(states, dim=1), left


def _fields(
    forecaster: Forecaster,
    cube: xr.Dataset,
    inits: Times,
    first: int,
    leads: int,
    outside: Outside,
) -> Tensor:
    """Forcing (B, T - 1 + L, F, H, W) of the step that each transition leads to, behind it what is
    given from outside; of the last T - 1 transitions before some leads, and of these."""
    spec, last = forecaster.spec, first + leads
    times = spec.step.time(np.arange(first + 2 - spec.history, last + 1), inits[:, None])
    names = forcings_of(spec.forcing)
    made = forcing_fields(names, times.ravel(), *spec.grid.places, months=spec.step.months)
    forcing = torch.from_numpy(made.reshape(*times.shape, *made.shape[1:]))
    if not spec.given:
        return forcing
    ahead = range(max(1, first + 1 - spec.history), last + 1)
    given = outside.fields(forecaster, cube, inits, ahead)
    return with_given(spec, forcing, given[:, -(spec.history + leads) :])
