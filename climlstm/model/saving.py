"""A forecaster as a folder: tensors in safetensors, their meaning in JSON. Nothing is executed.

forecaster.safetensors   weights, statistics, static fields
forecaster.json          format, spec, plugin, provenance, and the digest of the tensors
"""

import hashlib
import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from climlstm import plugins
from climlstm.advice import command
from climlstm.errors import CheckpointError, PluginError
from climlstm.model.forecaster import Forecaster
from climlstm.model.spec import Spec
from climlstm.version import __version__

FORMAT = 1

MAX_JSON = 64 * 2**20
"""Largest size of a description in bytes; no forecaster has a larger one."""


def save_forecaster(
    directory: Path, spec: Spec, state: dict[str, Tensor], provenance: dict[str, Any]
) -> None:
    """Write a forecaster into an existing folder.

    state: the forecaster's `state_dict`.
    provenance: its origin as plain JSON: data, periods seen, versions.
    """
    plugin = plugins.identify("models", spec.network)
    write_tensors(directory / "forecaster.safetensors", state)
    description = {
        "format": FORMAT,
        "climlstm": __version__,
        "spec": spec.to_dict(),
        "plugin": {"distribution": plugin.distribution, "version": plugin.version},
        "provenance": provenance,
        "sha256": digest(directory / "forecaster.safetensors"),
    }
    write_json(directory / "forecaster.json", description)


def read_forecaster(
    directory: Path, *, precision: torch.dtype = torch.float32
) -> tuple[Forecaster, dict[str, Any]]:
    """The forecaster in a folder, ready to forecast, and its provenance.

    Raises CheckpointError where the folder is not one, is damaged, or needs a plugin that is
    not installed; PluginError where that plugin is broken.
    """
    spec, description = read_spec(directory)
    try:
        check_digest(directory / "forecaster.safetensors", description["sha256"])
        state = read_tensors(directory / "forecaster.safetensors")
        provenance = dict(description["provenance"])
        with plugins.read_from_a_file(), plugins.resolved_as(provenance):
            _check_plugin(directory, spec.network, description["plugin"])
            forecaster = Forecaster.from_state(spec, state, precision=precision)
        return forecaster.eval(), provenance
    except CheckpointError:
        raise
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError, MemoryError) as error:
        raise _not_ours(directory, error) from error


def read_spec(directory: Path) -> tuple[Spec, dict[str, Any]]:
    """The spec of a forecaster in a folder, and all that stands beside it but the tensors.

    Raises CheckpointError where the folder is not one, or is damaged.
    """
    description = read_json(directory / "forecaster.json")
    if description.get("format") != FORMAT:
        raise CheckpointError(
            f"{directory} has format {description.get('format')!r}, this climlstm reads {FORMAT}. "
            "Read it with the version that wrote it."
        )
    try:
        spec = Spec.from_dict(description["spec"])
        _check_spec(spec)
    except CheckpointError:
        raise
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise _not_ours(directory, error) from error
    return spec, description


def _check_spec(spec: Spec) -> None:
    """Raises ValueError for a spec that no training writes, though a network could be built."""
    number = len(set(spec.channels))
    for name in ("channels", "units", "levels", "sign"):
        if len(getattr(spec, name)) != number:
            raise ValueError(f"{len(getattr(spec, name))} {name} for {number} channels")
    if type(spec.history) is not int or spec.history < 1:
        raise ValueError(f"history is {spec.history!r}, expected 1 or more")


def _not_ours(directory: Path, cause: Exception) -> CheckpointError:
    return CheckpointError(
        f"{directory}/forecaster.json does not describe a forecaster as climlstm writes it "
        f"({type(cause).__name__}: {cause}). Use another checkpoint."
    )


def _check_plugin(directory: Path, network: str, made_by: dict[str, str]) -> None:
    try:
        plugins.identify("models", network)
    except PluginError as error:
        distribution, version = made_by["distribution"], made_by["version"]
        if not distribution:  # a module's
            raise CheckpointError(f"{directory} cannot be used here: {error}") from error
        raise CheckpointError(
            f"{directory} was made with the network '{network}' of {distribution} {version}, which "
            "is not installed. Install it with: "
            + command("pip", "install", f"{distribution}=={version}")
        ) from error


def write_tensors(path: Path, tensors: dict[str, Tensor]) -> None:
    """Write tensors into a safetensors file."""
    save_file({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}, path)


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Tensors of a safetensors file. Raises CheckpointError where it is missing or damaged."""
    try:
        return load_file(path)
    except (OSError, SafetensorError, ValueError) as error:
        raise CheckpointError(f"{path} cannot be read: {error}.") from error


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write an object as a JSON file."""
    path.write_text(json.dumps(content, indent=1), encoding="utf-8")


def read_json(path: Path) -> dict[str, Any]:
    """Raises CheckpointError where the file is missing or damaged."""
    try:
        with path.open("rb") as file:
            stored = file.read(MAX_JSON + 1)
        if len(stored) > MAX_JSON:
            raise CheckpointError(f"{path} is larger than {MAX_JSON >> 20} MiB, so it is not ours.")
        content = json.loads(stored.decode("utf-8"))
    except FileNotFoundError:
        raise CheckpointError(
            f"{path.parent} is no checkpoint: it has no {path.name}. Give the folder of a "
            "checkpoint, or of a run that has one."
        ) from None
    except CheckpointError:
        raise
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{path} is damaged: {error}. Use an earlier checkpoint.") from error
    if not isinstance(content, dict):
        raise CheckpointError(f"{path} is damaged: it holds no JSON object.")
    return content


def digest(path: Path) -> str:
    """SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def check_digest(path: Path, expected: str) -> None:
    """Raises CheckpointError where the file is not, byte for byte, the one that was written."""
    if not path.is_file():
        raise CheckpointError(f"{path} is missing. Use an earlier checkpoint.")
    if digest(path) != expected:
        raise CheckpointError(
            f"{path} is damaged: its SHA-256 is not the one noted when it was written. "
            "Use an earlier checkpoint."
        )
