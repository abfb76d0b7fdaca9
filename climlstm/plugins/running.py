"""Errors of plugins while they run: whose code raised, or gave something else than was expected."""

import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

from climlstm.errors import ClimLSTMError, PluginError
from climlstm.plugins.discovery import BUILT_IN, SINGULAR, Kind, Plugin, discover
from climlstm.plugins.registry import distribution_of

PASSED_ON = ("OutOfMemoryError",)
"""Names of errors that are nobody's fault."""


def plugin_of(kind: Kind, name: str, thing: Any) -> Plugin:
    """The plugin that an object comes from, with its distribution.

    name: in the run file. thing: a loss, evaluator, baseline or network, or a Variable.
    """
    code = getattr(thing, "derive", None) or (thing if isinstance(thing, type) else type(thing))
    value = f"{code.__module__}:{code.__qualname__}"
    distribution, version = distribution_of(code.__module__.partition(".")[0])
    offered = (p for p in discover(kind) if (p.distribution, p.name) == (distribution, name))
    return next(offered, Plugin(kind, name, value, distribution, version))


@contextmanager
def running(kind: Kind, name: str, thing: Any, when: str) -> Iterator[None]:
    """Context of a call into a plugin: whatever it raises becomes a PluginError that names it.

    when: what is being done, such as 'at step 3'. Errors of built-in plugins are bugs of ours, and
    pass as they are.
    """
    try:
        yield
    except ClimLSTMError:
        raise
    except Exception as error:
        if type(error).__name__ in PASSED_ON:
            raise
        plugin = plugin_of(kind, name, thing)
        if plugin.distribution == BUILT_IN:
            raise
        raise PluginError(
            f"The {plugin} failed {when}: {type(error).__name__}: {error}{_place(error)}. "
            f"{_remedy(plugin)}"
        ) from error


def unexpected(kind: Kind, name: str, thing: Any, *, came: str, expected: str) -> PluginError:
    """The error for a plugin whose result is not what its kind promises."""
    plugin = plugin_of(kind, name, thing)
    return PluginError(f"The {plugin} gave {came} instead of {expected}. {_remedy(plugin)}")


def in_words(kind: Kind, name: str, thing: Any) -> str:
    """A plugin as messages call it: "the loss 'mse'", with the distribution if it is not ours."""
    plugin = plugin_of(kind, name, thing)
    ours = plugin.distribution == BUILT_IN
    return f"the {SINGULAR[kind]} '{name}'" if ours else f"the {plugin}"


def shape_of(result: Any) -> str:
    """Type, number format and shape of a result, as messages say them."""
    shape = getattr(result, "shape", None)
    if shape is None:
        return f"a {type(result).__name__}"
    return f"{getattr(result, 'dtype', type(result).__name__)} {tuple(shape)}"


def _place(error: Exception) -> str:
    """File and line where an error was raised, the last one outside of installed libraries."""
    frames = traceback.extract_tb(error.__traceback__)[1:]
    own = [f for f in frames if f"{Path('torch')}/" not in f.filename] or frames
    return f" ({Path(own[-1].filename).name}, line {own[-1].lineno})" if own else ""


def _remedy(plugin: Plugin) -> str:
    kind: Literal["commands"] | Kind = plugin.kind
    word = SINGULAR.get(kind, "command")  # type: ignore[arg-type]
    whose = f"Update or mend {plugin.distribution}" if plugin.distribution else "Mend it"
    return f"{whose}, or name another {word}."
