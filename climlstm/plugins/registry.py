"""Finding and loading plugins.

A plugin is an entry point in the group `climlstm.<kind>`. Listing plugins reads package metadata
only; an object is imported when a run file, a command or a checkpoint names it.
"""

import importlib
import importlib.util
import os
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace
from importlib.metadata import packages_distributions, version
from typing import Any, Literal

from climlstm.advice import command
from climlstm.errors import PluginError, nearest
from climlstm.plugins.contracts import API_VERSION, Variable
from climlstm.plugins.discovery import SINGULAR, Kind, Plugin, discover
from climlstm.plugins.options import options_of, validate


def find(kind: Kind, name: str) -> Plugin:
    """The plugin that a run file means by `name` or `distribution:name`.

    Of several distributions that offer the name, the one that a checkpoint or forecast recorded is
    meant (see `resolved_as`). Raises PluginError where there is none, or still several.
    """
    plugins = discover(kind)
    distribution, _, short = name.rpartition(":")
    matches = [p for p in plugins if p.name == short and distribution in ("", p.distribution)]
    if not matches and distribution and _read_from_a_file.get():
        raise PluginError(
            f"The {SINGULAR[kind]} '{name}' is neither of an installed package nor of a module "
            "that is loaded, and what a file names is not imported unasked. Import "
            f"'{distribution}' first, set {MODULES}={distribution} if you trust it, or install "
            "the package."
        )
    if not matches:
        known = sorted({p.name for p in plugins})
        raise PluginError(
            f"There is no {SINGULAR[kind]} '{name}' installed.{nearest(short, known)} "
            f"Installed: {', '.join(known) or 'none'}. "
            "Install the package that has it, or see 'climlstm plugins list'."
        )
    if len(matches) > 1:
        recorded = {(p.kind, p.name, p.distribution) for p in _recorded.get()}
        made_with = [p for p in matches if (p.kind, p.name, p.distribution) in recorded]
        if len(made_with) == 1:
            return made_with[0]
        choices = " or ".join(f"'{p.distribution}:{p.name}' ({p.version})" for p in matches)
        raise PluginError(
            f"The {SINGULAR[kind]} '{name}' is offered by several packages. "
            f"Say which one: {choices}."
        )
    return matches[0]


def identify(kind: Kind, name: str) -> Plugin:
    """The plugin that a name means, with its distribution; also for a `module:attribute`."""
    meant = _meant(kind, name)
    if meant.distribution:
        return meant
    distribution, release = distribution_of(meant.value.partition(":")[0].partition(".")[0])
    return replace(meant, distribution=distribution, version=release)


def _meant(kind: Kind, name: str) -> Plugin:
    """The plugin that a name means; the distribution of a `module:attribute` is left empty."""
    module, _, attribute = name.partition(":")
    if attribute and _is_module(module, kind):
        return Plugin(kind, name, name, "", "")
    return find(kind, name)


def distribution_of(package: str) -> tuple[str, str]:
    """Distribution and version of a package; both empty for a module of the user's own."""
    for kind in SINGULAR:
        for plugin in discover(kind):  # an editable install does not list its modules
            if plugin.value.partition(":")[0].partition(".")[0] == package:
                return plugin.distribution, plugin.version
    owners = packages_distributions().get(package, [])
    return (owners[0], version(owners[0])) if owners else ("", "")


def load(kind: Kind, name: str) -> Any:
    """The object behind a plugin: a Variable, or the class of a loss, model or anything else.

    name: as in `find`, or `module:attribute` with a dotted module path, for an object that is
    not packaged yet; `__main__:Mine` in a notebook.
    Raises PluginError, naming group, plugin, distribution, version and cause.
    """
    return load_found(_meant(kind, name))


def load_found(plugin: Plugin) -> Any:
    """The object behind a plugin that `discover` found; errors as from `load`."""
    module, _, attribute = plugin.value.partition(":")
    loaded = _import(module, attribute, plugin)
    wanted = getattr(loaded, "api_version", API_VERSION)
    if wanted != API_VERSION:
        remedy = f"Install a release of '{plugin.distribution}' that fits, or another climlstm."
        raise PluginError(
            f"The {plugin} was written for version {wanted} of the plugin interface, "
            f"but this climlstm has version {API_VERSION}. "
            f"{remedy if plugin.distribution else 'Adapt it to this version.'}"
        )
    return loaded


def missing(recorded: Iterable[Plugin]) -> list[str]:
    """Messages about plugins that are needed and not installed here, each with the remedy.

    recorded: as `identify` gave them when a checkpoint or forecast was written, or elsewhere.
    Another version than the recorded one is not missing: see `changed`.
    """
    return [message for plugin in recorded if (message := _missing(plugin)) is not None]


def _missing(plugin: Plugin) -> str | None:
    module, _, attribute = plugin.name.partition(":")
    install = command("pip", "install", f"{plugin.distribution}=={plugin.version}")
    if not (attribute and plugin.name == plugin.value):
        offered = [p for p in discover(plugin.kind) if p.name == plugin.name]
        if any(p.distribution == plugin.distribution for p in offered):
            return None
        rivals = ", ".join(f"{p.distribution} {p.version}" for p in offered)
        other = f" (another one of that name is, of {rivals})" if offered else ""
        return f"the {plugin} is not installed{other}. Install it with: {install}"
    if _is_module(module, plugin.kind):  # type: ignore[arg-type]
        return None
    if plugin.distribution:
        return f"the {plugin} is not installed. Install it with: {install}"
    return (
        f"the {plugin} is not here. Put the module '{module}' on PYTHONPATH and import it, or name "
        f"it in {MODULES}; better, package it."
    )


def changed(recorded: Iterable[Plugin]) -> list[str]:
    """Messages about plugins that are installed here in another version than the recorded one."""
    messages = []
    for plugin in recorded:
        for here in discover(plugin.kind):
            same = (here.name, here.distribution) == (plugin.name, plugin.distribution)
            if same and here.version != plugin.version:
                messages.append(f"the {plugin} is installed in version {here.version}")
    return messages


@dataclass(frozen=True)
class State:
    """Whether a plugin can be used."""

    word: Literal["found", "ok", "conflict", "API mismatch", "broken"]
    """`found`: by its metadata, without having been imported."""
    reason: str = ""


def state(plugin: Plugin, others: Iterable[Plugin], *, load: bool = False) -> State:
    """Whether a plugin can be used; never an error, so that one package cannot spoil a listing.

    others: all plugins of its kind, among which its name may occur again.
    load: import it, to be sure. Otherwise only its metadata are read.
    """
    rivals = [p for p in others if p.name == plugin.name and p != plugin]
    module = plugin.value.partition(":")[0].split(".")[0]
    if module not in sys.modules and importlib.util.find_spec(module) is None:
        return State("broken", f"there is no module '{module}'")
    if load:
        try:
            load_found(plugin)
        except PluginError as error:
            cause = error.__cause__
            if cause is None:
                return State("API mismatch", str(error))
            return State("broken", f"{type(cause).__name__}: {cause}")
    if rivals:
        names = ", ".join(f"{rival.distribution}:{rival.name}" for rival in rivals)
        say = f"say {plugin.distribution}:{plugin.name}"
        remedy = "remove all but one" if plugin.kind == "commands" else say
        return State("conflict", f"also {names}; {remedy}")
    return State("ok" if load else "found")


MODULES = "CLIMLSTM_MODULES"
"""Environment variable: modules, with commas between, that a file may name for import."""

_read_from_a_file: ContextVar[bool] = ContextVar("read_from_a_file", default=False)


@contextmanager
def read_from_a_file() -> Iterator[None]:
    """Context in which names of plugins come from a checkpoint or forecast of somebody else.

    A `module:attribute` is then taken only if the module is loaded already, is of a package with
    plugins, or is named in CLIMLSTM_MODULES: a file must not make us import whatever it says.
    """
    token = _read_from_a_file.set(True)
    try:
        yield
    finally:
        _read_from_a_file.reset(token)


_recorded: ContextVar[tuple[Plugin, ...]] = ContextVar("recorded", default=())


@contextmanager
def resolved_as(provenance: Mapping[str, Any]) -> Iterator[None]:
    """Context in which names that several distributions offer mean what a file was made with.

    provenance: of a checkpoint or forecast.
    """
    token = _recorded.set(tuple(recorded_in(provenance)))
    try:
        yield
    finally:
        _recorded.reset(token)


def recorded_in(provenance: Mapping[str, Any]) -> list[Plugin]:
    """The plugins that a checkpoint or forecast was made with, as it records them.

    Raises PluginError where the record is damaged.
    """
    try:
        return [Plugin(**plugin) for plugin in provenance.get("plugins", ())]
    except (TypeError, AttributeError, ValueError, KeyError) as error:
        raise PluginError(f"its record of plugins is damaged ({error!r}).") from error


def _is_module(module: str, kind: Kind) -> bool:
    """Whether `module:attribute` rather than `distribution:name` is meant.

    A module that is loaded counts too: `__main__:Mine` is what a notebook has defined.
    """
    if any(plugin.distribution == module for plugin in discover(kind)):
        return False
    if module in sys.modules:
        return True
    if _read_from_a_file.get() and not _may_be_imported(module):
        return False
    try:
        return importlib.util.find_spec(module) is not None
    except (ImportError, ValueError):
        return False


def _may_be_imported(module: str) -> bool:
    """Whether a file may name it: the user says so, or it is of a package with plugins."""
    package = module.partition(".")[0]
    packages = {p.value.partition(":")[0].partition(".")[0] for k in SINGULAR for p in discover(k)}
    return package in packages or module in os.environ.get(MODULES, "").split(",")


def _import(module: str, attribute: str, plugin: Plugin) -> Any:
    try:
        loaded: Any = importlib.import_module(module)
        for part in attribute.split("."):
            loaded = getattr(loaded, part)
    except Exception as error:  # whatever a foreign module raises, its user must learn whose it is
        raise PluginError(
            f"The {plugin} cannot be imported: {type(error).__name__}: {error}. "
            "Reinstall or update the package, or leave the plugin out."
        ) from error
    return loaded


def check_options(kind: Kind, name: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """The options of a plugin with defaults filled in, validated by its own schema.

    The schema is the plugin's fields, where it is a frozen dataclass, or else the dataclass
    or pydantic model that it names as `Options`. Raises PluginError with the wrong key.
    """
    loaded = load(kind, name)
    return validate(getattr(loaded, "Options", loaded), options, whose=str(_meant(kind, name)))


def complete_options(kind: Kind, name: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """All options in plain data, checked, to be kept: later versions may have other defaults."""
    loaded, checked = load(kind, name), check_options(kind, name, options)
    written = options_of(getattr(loaded, "Options", loaded)(**checked))
    return {key: written[key] for key in checked}


def create(
    kind: Literal["losses", "evaluators", "baselines", "transforms"],
    name: str,
    options: Mapping[str, Any],
) -> Any:
    """A loss, evaluator, baseline or transform with its options, validated."""
    return load(kind, name)(**check_options(kind, name, options))


def name_of(thing: Any) -> str:
    """The `module:attribute` under which an object that Python code has at hand is found again.

    thing: a class, an instance of one, or a Variable that a module holds.
    Raises PluginError for what is defined inside a function, where nobody else can reach it.
    """
    if isinstance(thing, Variable):
        return _place_of(thing)
    kind = thing if isinstance(thing, type) else type(thing)
    if "<locals>" in kind.__qualname__:
        raise PluginError(
            f"{kind.__qualname__} is defined inside a function, where no other process can find "
            "it. Define it at the top level of the notebook or module."
        )
    return f"{kind.__module__}:{kind.__qualname__}"


def _place_of(variable: Variable) -> str:
    for home in ("__main__", getattr(variable.derive, "__module__", None)):
        for attribute, value in vars(sys.modules.get(home or "", object)).items():
            if value is variable:
                return f"{home}:{attribute}"
    raise PluginError(
        f"The variable '{variable.name}' is found neither in __main__ nor in the module of its "
        "derive(). Assign it to a name at the top level of the notebook or module."
    )
