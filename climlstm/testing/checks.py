"""How checks of plugins are written, run and reported."""

import functools
import importlib
import inspect
import pickle
import unittest
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from climlstm import plugins
from climlstm.plugins import SINGULAR, Kind
from climlstm.plugins.options import field_names

TESTS: dict[Kind, str] = {
    "variables": "VariableTests",
    "losses": "LossTests",
    "evaluators": "EvaluatorTests",
    "baselines": "BaselineTests",
    "models": "ModelTests",
    "transforms": "TransformTests",
}


class Conformance:
    """Checks of one kind of plugin: methods called `test_…`, so pytest finds them in subclasses."""

    expected_failures: ClassVar[Mapping[str, str]] = {}
    """Names of checks that the plugin fails, each with the reason."""

    def __init_subclass__(cls, **keywords: Any) -> None:
        super().__init_subclass__(**keywords)
        for name, reason in cls.__dict__.get("expected_failures", {}).items():
            setattr(cls, name, _expected_to_fail(getattr(cls, name), reason))


def _expected_to_fail(check: Callable[[Any], None], reason: str) -> Callable[[Any], None]:
    import pytest  # here, and only where somebody writes tests

    @functools.wraps(check)
    def same(self: Any) -> None:
        check(self)

    return pytest.mark.xfail(reason=reason, strict=True)(same)


@dataclass(frozen=True)
class Outcome:
    """Result of one check."""

    name: str
    """Name of the method: `test_zero_at_truth`."""
    what: str
    """The promise that was checked, in a line."""
    state: Literal["passed", "failed", "skipped"]
    reason: str = ""


def run(tests: type[Conformance], **subject: Any) -> list[Outcome]:
    """All checks of a class, without a test runner: run(LossTests, loss=Mine())."""
    given = type(f"Given{tests.__name__}", (tests,), dict(subject))
    names = [name for name, _ in inspect.getmembers(given, inspect.isfunction)]
    return [_outcome(given, name) for name in names if name.startswith("test_")]


def _outcome(given: type[Conformance], name: str) -> Outcome:
    method = getattr(given(), name)
    what = inspect.getdoc(method) or ""
    try:
        method()
    except unittest.SkipTest as skip:
        return Outcome(name, what, "skipped", str(skip))
    except Exception as error:  # whatever a plugin does wrong is the answer
        kind = "" if isinstance(error, AssertionError) else f"{type(error).__name__}: "
        return Outcome(name, what, "failed", f"{kind}{error}")
    return Outcome(name, what, "passed")


def check(kind: Kind, name: str, options: Mapping[str, Any] | None = None) -> list[Outcome]:
    """All checks of an installed plugin, by its name, made with these options.

    Raises PluginError where it cannot be loaded, or not be made with these options.
    """
    tests = getattr(importlib.import_module(f"climlstm.testing.{kind}"), TESTS[kind])
    chosen = dict(options or {})
    if kind == "variables":
        return run(tests, variable=plugins.load(kind, name))
    if kind == "models":
        checked = plugins.check_options(kind, name, chosen)
        return run(tests, network=plugins.load(kind, name), options=checked)
    return run(tests, **{SINGULAR[kind]: plugins.create(kind, name, chosen)})


def expect(condition: object, message: str) -> None:
    """Raise AssertionError with a message for the plugin's author; unlike assert, in every mode."""
    if not condition:
        raise AssertionError(message)


def expect_version(subject: Any) -> None:
    """Fail where a plugin was written for another version of the interface."""
    version = getattr(subject, "api_version", plugins.API_VERSION)
    ours = plugins.API_VERSION
    expect(version == ours, f"api_version is {version!r}, but this climlstm has {ours}")


def expect_options(subject: type) -> None:
    """Fail where options are no fields of a dataclass, so that no run file could be validated."""
    expect(
        field_names(getattr(subject, "Options", subject)) is not None,
        f"{subject.__name__} is neither a dataclass nor has one called 'Options': make it a frozen "
        "dataclass whose fields are its options",
    )
    expect_version(subject)


def pickled(subject: Any) -> Any:
    """The copy that another worker gets."""
    try:
        return pickle.loads(pickle.dumps(subject))
    except Exception as error:
        raise AssertionError(
            f"{type(subject).__name__} cannot be pickled ({type(error).__name__}: {error}), so no "
            "worker can have it. Define it at the top of a module and keep lambdas out of its "
            "fields"
        ) from error
