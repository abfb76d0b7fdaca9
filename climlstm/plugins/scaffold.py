"""A ready project for a plugin: what `climlstm plugins new` writes."""

import keyword
import os
import re
import shutil
import string
import tempfile
from pathlib import Path

from climlstm import plugins
from climlstm.errors import PluginError, nearest
from climlstm.plugins import SINGULAR, Kind


def new_project(kind: Kind, name: str, parent: Path) -> Path:
    """Write the project `climlstm-NAME` for a plugin of that name; the whole, or nothing.

    parent: folder in which the project's own folder is made.
    Raises PluginError for a name that cannot be used and where the folder exists already.
    """
    _check_name(kind, name)
    folder = parent / f"climlstm-{name.replace('_', '-')}"
    if folder.exists():
        raise PluginError(
            f"{folder} exists already, and nothing in it is overwritten. "
            "Choose another name, or another folder with --in."
        )
    parent.mkdir(parents=True, exist_ok=True)
    draft = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=parent))
    try:
        for path, content in _files(kind, name).items():
            target = draft / path
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(content, encoding="utf-8")
        draft.chmod(0o755)
        os.rename(draft, folder)
    except BaseException:
        shutil.rmtree(draft, ignore_errors=True)
        raise
    return folder


def kind_of(word: str) -> Kind:
    """`loss` or `losses` as the kind they mean. Raises PluginError for another word."""
    for kind, singular in SINGULAR.items():
        if word in (kind, singular):
            return kind
    raise PluginError(
        f"There is no kind of plugin called '{word}'.{nearest(word, SINGULAR.values())} "
        f"Kinds: {', '.join(SINGULAR.values())}."
    )


def _check_name(kind: Kind, name: str) -> None:
    if not re.fullmatch(r"[a-z][a-z0-9_]*", name) or keyword.iskeyword(name):
        raise PluginError(
            f"'{name}' cannot be the name of a plugin. Take small letters, digits and '_', a "
            "letter first, and no keyword of Python."
        )
    taken = [plugin for plugin in plugins.discover(kind) if plugin.name == name]
    if taken:
        raise PluginError(f"The name is taken, by the {taken[0]}. Choose another.")


def _files(kind: Kind, name: str) -> dict[str, str]:
    package = f"climlstm_{name}"
    words = {
        "name": name,
        "package": package,
        "project": f"climlstm-{name.replace('_', '-')}",
        "kind": kind,
        "singular": SINGULAR[kind],
        "object": name.upper() if kind == "variables" else _class_name(name),
        "use": USE[kind].replace("$name", name),
    }
    templates = {
        "pyproject.toml": PYPROJECT,
        "README.md": README,
        f"{package}/__init__.py": MODULES[kind],
        f"tests/test_{name}.py": TESTS[kind],
        ".gitignore": "__pycache__/\n*.egg-info/\n.pytest_cache/\n.venv/\nbuild/\ndist/\n",
    }
    return {path: string.Template(text).substitute(words) for path, text in templates.items()}


def _class_name(name: str) -> str:
    return "".join(word.capitalize() for word in name.split("_"))


PYPROJECT = """\
[build-system]
requires = ["hatchling"]
build-backend = "hatchling.build"

[project]
name = "$project"
version = "0.1.0"
description = "The $singular '$name' for climlstm"
readme = "README.md"
requires-python = ">=3.11"
dependencies = ["climlstm"]

[project.optional-dependencies]
test = ["pytest>=8.3"]

[project.entry-points."climlstm.$kind"]
$name = "$package:$object"

[tool.hatch.build.targets.wheel]
packages = ["$package"]
"""

README = """\
# $project

The $singular `$name` for [climlstm](https://pypi.org/project/climlstm/).

```sh
pip install -e .
climlstm plugins show $name
climlstm plugins check $name    # what climlstm asks of every $singular
pytest                          # the same, and tests of your own
```

In a run file:

```yaml
$use
```
"""

USE: dict[Kind, str] = {
    "losses": "training: {loss: {name: $name, options: {power: 1.5}}}",
    "variables": "data: {state: [t2m, $name]}",
    "evaluators": "evaluation: {evaluators: [{name: $name, options: {tolerance: 2.0}}]}",
    "models": "model: {name: $name, options: {hidden: 32}}",
}

MODULES: dict[Kind, str] = {
    "losses": '''\
"""The loss `$name` for climlstm."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor


@dataclass(frozen=True)
class $object:
    """Weighted mean of a power of the absolute error. Replace it by your own."""

    power: Annotated[float, Field(gt=1)] = 1.5
    """Its fields are its options in the run file."""

    def __call__(
        self, prediction: Tensor, target: Tensor, *, weight: Tensor, channels: Sequence[str]
    ) -> Tensor:
        """prediction, target: (B, L, C, H, W), normalised; weight: (C, H, W) with mean 1.

        Where the weight is zero the target may be NaN.
        """
        error = torch.where(weight > 0, prediction - target, 0.0)
        return (weight * error.abs() ** self.power).mean()
''',
    "variables": '''\
"""The variable `$name` for climlstm."""

import numpy as np
import xarray as xr

from climlstm.plugins import Style, Variable


def kinetic_energy(ds: xr.Dataset) -> xr.DataArray:
    """Per mass, m2 s-2, of the wind at 10 m. Replace it by your own.

    ds: the inputs (time, latitude, longitude), in climlstm's units; lazy in, lazy out.
    """
    return (np.square(ds["u10"]) + np.square(ds["v10"])) / 2


$object = Variable(
    name="$name",
    long_name="Kinetic energy of the 10 m wind",
    units="m2 s-2",
    inputs=("u10", "v10"),
    derive=kinetic_energy,
    style=Style(colormap="YlOrRd", limits=(0, 300)),
)
''',
    "evaluators": '''\
"""The evaluator `$name` for climlstm."""

from dataclasses import dataclass
from typing import Annotated, ClassVar

import numpy as np
import pandas as pd
import xarray as xr
from pydantic import Field


@dataclass(frozen=True)
class $object:
    """Share of the area where the error stays below a tolerance. Replace it by your own."""

    requires: ClassVar[tuple[str, ...]] = ()
    """Channels without which it cannot work; none: whatever the forecast has."""
    needs: ClassVar[tuple[str, ...]] = ("weight",)

    tolerance: Annotated[float, Field(gt=0)] = 1.0
    """Its fields are its options in the run file. In units of the variable."""

    def score(
        self, forecast: xr.Dataset, truth: xr.Dataset, *, weight: xr.DataArray
    ) -> pd.DataFrame:
        """Of one initialisation; cells that are never observed are NaN and left out."""
        if "realization" in forecast.dims:
            forecast = forecast.mean("realization")
        area = weight.sel(region="global", drop=True)
        rows = []
        for name in forecast.data_vars:
            error = np.abs(forecast[name] - truth[name])
            within = (error <= self.tolerance).where(error.notnull())
            shares = within.weighted(area).mean(["latitude", "longitude"])
            rows += [
                {"variable": str(name), "lead_time": lead, "share": float(share)}
                for lead, share in zip(shares.lead_time.values, shares.values, strict=True)
            ]
        return pd.DataFrame(rows)

    def summarise(self, scores: pd.DataFrame) -> pd.DataFrame:
        """Of all initialisations: rows of climlstm's table of scores."""
        groups = scores.groupby(["variable", "lead_time"])["share"]
        table = groups.agg(value="mean", n="count").reset_index()
        return table.assign(metric="$name", region="global", units="1")
''',
    "models": '''\
"""The network `$name` for climlstm."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated

import torch
import torch.nn.functional as F
from climlstm.model.padding import Geometry, with_halo
from pydantic import Field
from torch import Tensor, nn


class $object(nn.Module):
    """Two convolutions from the history to the tendency. Replace it by your own."""

    @dataclass(frozen=True)
    class Options:
        """What a run file can choose."""

        hidden: Annotated[int, Field(ge=1)] = 32
        """Channels between the convolutions."""

    sign: Tensor
    scale: Tensor

    def __init__(
        self,
        channels: int,
        forcing: int,
        static: int,
        *,
        history: int,
        geometry: Geometry,
        tendency_scale: Tensor | None = None,
        precision: torch.dtype = torch.float32,
        **options: object,
    ) -> None:
        """`forcing` and `static` fields enter together; options as in `Options`."""
        super().__init__()
        chosen = self.Options(**options)
        self.geometry = geometry
        self.precision = precision
        self.convolution = nn.Conv2d(channels * history + forcing + static, chosen.hidden, 3)
        self.head = nn.Conv2d(chosen.hidden, channels, 1)
        for parameter in self.head.parameters():  # untrained, it forecasts persistence
            nn.init.zeros_(parameter)
        scale = torch.ones(channels) if tendency_scale is None else tendency_scale
        scale = scale.reshape(channels, *(scale.shape[1:] or (1, 1))).clone()
        self.register_buffer("scale", scale, persistent=False)
        sign = [*(geometry.sign or (1,) * channels) * history, *(1,) * (forcing + static)]
        self.register_buffer("sign", torch.tensor(sign, dtype=torch.float32), persistent=False)

    def steps(self, history: Tensor, forcing: Tensor) -> Iterator[Tensor]:
        """Yield the predicted state (B, C, H, W), one lead step after another.

        history: (B, T, C, H, W), normalised.
        forcing: (B, T - 1 + L, F + S, H, W), one for each transition, history's included.
        """
        known = list(history.unbind(1))
        for fields in forcing.unbind(1)[len(known) - 1 :]:
            inputs = with_halo(torch.cat([*known, fields], dim=1), 1, self.geometry, self.sign)
            x = F.silu(_convolve(self.convolution, inputs.to(self.precision)))
            state = known[-1] + self.scale * _convolve(self.head, x).to(inputs.dtype)
            known = [*known[1:], state]
            yield state


def _convolve(layer: nn.Conv2d, x: Tensor) -> Tensor:
    """The convolution in the precision of x."""
    return F.conv2d(x, layer.weight.to(x.dtype), layer.bias.to(x.dtype))
''',
}

TESTS: dict[Kind, str] = {
    "losses": '''\
"""What climlstm asks of every loss, and what this one promises besides."""

import climlstm.testing
import pytest
import torch
from $package import $object


class TestConformance(climlstm.testing.LossTests):
    loss = $object()


def test_errors_of_one_and_four_by_hand():
    error = torch.tensor([1.0, 4.0]).reshape(1, 1, 1, 1, 2)
    weight = torch.ones(1, 1, 2)
    loss = $object(power=1.5)(error, torch.zeros_like(error), weight=weight, channels=("t2m",))
    assert loss.item() == pytest.approx((1 + 8) / 2)
''',
    "variables": '''\
"""What climlstm asks of every variable, and that this one is right on a known field."""

import climlstm.testing
import numpy as np
import xarray as xr
from $package import $object


class TestConformance(climlstm.testing.VariableTests):
    variable = $object

    def known(self):
        ones = xr.DataArray(np.ones((1, 2, 2)), dims=("time", "latitude", "longitude"))
        return xr.Dataset({"u10": 3 * ones, "v10": -4 * ones}), 12.5 * ones
''',
    "evaluators": '''\
"""What climlstm asks of every evaluator, and what this one promises besides."""

import climlstm.testing
import numpy as np
import xarray as xr
from $package import $object


class TestConformance(climlstm.testing.EvaluatorTests):
    evaluator = $object()


def test_half_of_the_area_within_the_tolerance():
    dims = ("lead_time", "latitude", "longitude")
    coords = {"lead_time": [np.timedelta64(6, "h")]}
    truth = xr.Dataset({"t2m": (dims, np.zeros((1, 2, 2)))}, coords=coords)
    forecast = truth + xr.DataArray([0.5, 3.0], dims="latitude")
    weight = xr.DataArray(np.full((1, 2, 2), 0.25), dims=("region", *dims[1:]))
    weight = weight.assign_coords(region=["global"])
    evaluator = $object(tolerance=1.0)
    scores = evaluator.summarise(evaluator.score(forecast, truth, weight=weight))
    assert scores["value"].tolist() == [0.5]
''',
    "models": '''\
"""What climlstm asks of every network."""

import climlstm.testing
from $package import $object


class TestConformance(climlstm.testing.ModelTests):
    network = $object
    options = {"hidden": 8}
''',
}
