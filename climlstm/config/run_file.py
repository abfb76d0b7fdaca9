"""Reading a run file: paths in it are relative to the folder that it stands in."""

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import ValidationError

from climlstm import plugins
from climlstm.config.checks import check_ensemble, check_plugins, check_start
from climlstm.config.plain_yaml import MAX_BYTES, TextDatesLoader, load_yaml
from climlstm.config.retired import RETIRED, retired_keys, without_retired
from climlstm.config.secrets import redact
from climlstm.config.sections import Config
from climlstm.config.values import Section
from climlstm.errors import ConfigError
from climlstm.plugins.options import explain

LOCATIONS = ("data.catalog", "data.cache.folder", "training.start_from", "cluster.storage")
"""Keys that hold a path or a URL."""

MODULE = r"\b([A-Za-z_]\w*)(?:\.\w+)*:[A-Za-z_]"
"""The package or module in `module:attribute`."""

Located = TypeVar("Located", bound=Section)


def load_config(
    path: str | Path, overrides: Iterable[str] = (), *, values: Mapping[str, Any] | None = None
) -> Config:
    """Read a run file, apply overrides ('training.epochs=2') and check all that needs no data.

    values: overrides as Python has them, {"training.epochs": 2}; an object that is to be a plugin
        stands for itself, {"training.loss": Mine(power=3)}.
    Raises ConfigError with the file, the key, the value, and what was expected.

    >>> import climlstm
    >>> config = climlstm.load_config("run.yaml", ["training.epochs=1"])
    >>> config.training.epochs, config.data.state
    (1, ('t850', 'msl', 'u10', 'v10', 'z500'))
    """
    path = Path(path)
    content = _read_yaml(path)
    for override in overrides:
        _apply_override(content, override)
    for key, value in (values or {}).items():
        _set(content, key, value)
    of_checkpoint = path.with_name("forecaster.json").exists()
    if not of_checkpoint:
        plugins.look_beside(path.resolve().parent, re.findall(MODULE, str(content)))
    config = parse_config(content, where=str(path), stored=of_checkpoint)
    folder = path.resolve().parent
    for location in LOCATIONS:
        config = _located(config, location.split("."), folder)
    return config


def as_config(run: Config | str | Path) -> Config:
    """The run itself, or the one that a file describes."""
    return run if isinstance(run, Config) else load_config(run)


def parse_config(content: Mapping[str, Any], *, where: str, stored: bool = False) -> Config:
    """A run from nested dictionaries; `where` they come from is named in errors.

    stored: in a checkpoint or forecast, perhaps by an earlier version: retired keys are ignored,
        and of plugins only variables are looked for. Who forecasts needs no loss.
    """
    gone = [f"the key '{key}' is gone ({RETIRED[key]})" for key in retired_keys(content)]
    if gone and not stored:
        raise ConfigError(f"{where}: {'; '.join(gone)}. Remove the line.")
    content = without_retired(content)
    try:
        config = Config.model_validate(content)
    except ValidationError as error:
        raise ConfigError(f"{where}: {redact(explain(error, Config, noun='key'))}") from error
    wrong = check_plugins(config, channels_only=stored)
    if wrong:
        raise ConfigError(f"{where}: " + "\n".join(wrong))
    if not stored:
        check_ensemble(config, where)
    check_start(config, where)
    return config


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            stored = file.read(MAX_BYTES + 1)
        text = stored.decode("utf-8")
    except FileNotFoundError:
        raise ConfigError(f"There is no run file '{path}'. Check the path.") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"The run file '{path}' cannot be read: {error}.") from error
    if len(stored) > MAX_BYTES:
        raise ConfigError(f"The run file '{path}' is larger than {MAX_BYTES // 1000} kB.")
    try:
        content = load_yaml(text, TextDatesLoader)
    except yaml.YAMLError as error:
        raise ConfigError(f"The run file '{path}' is not valid YAML: {error}") from error
    if not isinstance(content, dict):
        raise ConfigError(
            f"The run file '{path}' holds {type(content).__name__} instead of sections "
            "such as 'data:' and 'training:'."
        )
    return content


def _apply_override(content: dict[str, Any], override: str) -> None:
    key, equals, value = override.partition("=")
    if not equals or not re.fullmatch(r"[\w-]+(\.[\w-]+)*", key):
        raise ConfigError(
            f"--set {override}: expected KEY=VALUE with a key such as training.epochs."
        )
    try:
        _set(content, key, load_yaml(value, TextDatesLoader))
    except yaml.YAMLError as error:
        raise ConfigError(f"--set {override}: the value is not valid YAML: {error}") from error


def _set(content: dict[str, Any], key: str, value: Any) -> None:
    *sections, last = key.split(".")
    place = content
    for section in sections:
        place = place.setdefault(section, {})
        if not isinstance(place, dict):
            raise ConfigError(f"{key}: '{section}' is a value, not a section.")
    place[last] = value


def _located(section: Located, key: Sequence[str], folder: Path) -> Located:
    """The section, where a relative path at a key is one of the folder."""
    name, *rest = key
    value = getattr(section, name)
    if value is None:
        return section
    if rest:
        value = _located(value, rest, folder)
    elif "://" not in value:
        value = str(folder / Path(value).expanduser())
    return section.model_copy(update={name: value})
