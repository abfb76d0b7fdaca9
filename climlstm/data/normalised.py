"""Values of channels as a network sees them: transformed, then normalised."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from climlstm.data.cube.cube import CubePlan
from climlstm.data.cube.recipes import ChannelRecipe, TransformedRecipe, apply_transform
from climlstm.data.statistics.statistics import Statistics
from climlstm.grid import grid_of
from climlstm.model.normaliser import Normaliser, transform_of


def transformed(plan: CubePlan, settings: Mapping[str, Mapping[str, Any]]) -> CubePlan:
    """The plan of the values that are normalised: after the transforms of their channels.

    The plan itself where there are none.
    """
    found = {name: transform_of(each) for name, each in settings.items()}

    def changed(recipe: ChannelRecipe) -> ChannelRecipe:
        transform = found.get(recipe.channel.name)
        if transform is None:
            return recipe
        return TransformedRecipe(recipe.channel, recipe.fields, recipe.cells, transform)

    def changed_array(name: str, array: xr.DataArray) -> xr.DataArray:
        transform = found.get(name)
        if transform is None:
            return array
        return array.copy(data=array.data.map_blocks(apply_transform, transform, dtype="float32"))

    if not any(found.values()):
        return plan
    others = {name: changed_array(name, array) for name, array in plan.others.items()}
    recipes = tuple(changed(recipe) for recipe in plan.recipes)
    return replace(plan, recipes=recipes, others=others)


def extremes_in_units(
    statistics: Statistics, settings: Mapping[str, Mapping[str, Any]]
) -> Statistics:
    """The statistics with extremes of transformed channels brought back to their units.

    Their mean and standard deviation become the middle and the width of the extremes.
    """
    mean, std = statistics.mean.copy(), statistics.std.copy()
    extremes = list(statistics.extremes)
    for name, setting in settings.items():
        transform = transform_of(setting)
        own = [i for i, each in enumerate(extremes) if each.channel == name]
        if transform is None or not own:
            continue
        values = torch.tensor([extremes[i].value for i in own], dtype=torch.float64)
        plain = transform.inverse(values).tolist()
        for i, value in zip(own, plain, strict=True):
            extremes[i] = replace(extremes[i], value=value)
        at = statistics.channels.index(name)
        mean[at], std[at] = np.mean(plain), max(plain) - min(plain)
    return replace(statistics, mean=mean, std=std, extremes=tuple(extremes))


def normalised_climatology(
    fields: xr.Dataset, settings: Mapping[str, Mapping[str, Any]], statistics: Statistics
) -> Tensor:
    """Climatology (time, C, H, W) of the channels of the statistics as a network sees it.

    fields: (time, latitude, longitude), in plain units; missing cells become 0.
    """
    chosen = fields[list(statistics.channels)].to_dataarray("channel")
    values = torch.from_numpy(
        chosen.transpose("time", "channel", *grid_of(fields).dims).values.astype("float32")
    )
    normaliser = Normaliser(
        torch.from_numpy(statistics.mean),
        torch.from_numpy(statistics.std),
        channels=statistics.channels,
        settings=settings,
    )
    return normaliser.normalise(values).nan_to_num(nan=0.0)
