"""Installed plugins, from the metadata of their distributions. Nothing is imported.

Looking through the metadata takes 10 ms and more, and a run asks hundreds of times. So the answer
is kept until something was installed or removed: until a folder of `sys.path`, or the list of entry
points of a distribution with plugins, was last changed at another time than before.
"""

import functools
import logging
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import Distribution, EntryPoint, distributions, entry_points
from typing import Literal

logger = logging.getLogger(__name__)

BUILT_IN = "climlstm"
"""The distribution whose plugins are never overridden silently."""

Kind = Literal["variables", "losses", "evaluators", "baselines", "models", "transforms"]
SINGULAR: dict[Kind, str] = {
    "variables": "variable",
    "losses": "loss",
    "evaluators": "evaluator",
    "baselines": "baseline",
    "models": "model",
    "transforms": "transform",
}
"""Word for one plugin of each kind."""


@dataclass(frozen=True)
class Plugin:
    """A plugin as the metadata of an installed distribution describe it."""

    kind: Kind | Literal["commands"]
    name: str
    value: str
    distribution: str
    """Empty for an object that no distribution has: a module of the user's own, a notebook."""
    version: str

    def __str__(self) -> str:
        kind = "command" if self.kind == "commands" else SINGULAR[self.kind]
        whose = f"of {self.distribution} {self.version}" if self.distribution else "of no package"
        return f"{kind} '{self.name}' {whose} (climlstm.{self.kind}: {self.value})"


def discover(kind: Kind | Literal["commands"]) -> list[Plugin]:
    """All plugins of one kind, by name; the same entry point found twice is listed once.

    CLIMLSTM_PLUGINS, a comma-separated list of distributions, restricts those that are seen
    besides our own; set but empty, it leaves the built-in ones only.
    """
    allowed = os.environ.get("CLIMLSTM_PLUGINS")
    names = None if allowed is None else {BUILT_IN, *(n.strip() for n in allowed.split(",") if n)}
    return [
        plugin
        for plugin in _installed()
        if plugin.kind == kind and (names is None or plugin.distribution in names)
    ]


def _installed() -> tuple[Plugin, ...]:
    places = tuple(_changed(os.path.abspath(path)) for path in sys.path)
    found, lists = _look(places)
    if tuple(_changed(path) for path, _ in lists) != lists:  # edited where it lies
        _look.cache_clear()
        found, _ = _look(places)
    return found


Stamp = tuple[str, int]
"""A path, and when it was last changed (ns)."""


def _changed(path: str) -> Stamp:
    try:
        return path, os.stat(path).st_mtime_ns
    except OSError:
        return path, 0


@functools.lru_cache(maxsize=1)
def _look(places: tuple[Stamp, ...]) -> tuple[tuple[Plugin, ...], tuple[Stamp, ...]]:
    """All plugins, by name, and the lists of entry points that they stand in."""
    found, lists = set(), set()
    identities: dict[int, tuple[str, str]] = {}
    for entry in _entries():
        owner = entry.dist
        if id(owner) not in identities:  # each look at a name or version parses the metadata, 2 ms
            identities[id(owner)] = _identity(owner)
        if owner is not None:
            lists.add(_changed(str(owner.locate_file(""))))
            path = getattr(owner, "_path", None)  # of PathDistribution, the only one in wide use
            if path is not None:
                lists.add(_changed(str(path.joinpath("entry_points.txt"))))
        distribution, version = identities[id(owner)]
        found.add(
            Plugin(
                kind=entry.group.removeprefix(f"{BUILT_IN}."),  # type: ignore[arg-type]
                name=entry.name,
                value=entry.value,
                distribution=distribution,
                version=version,
            )
        )
    order = sorted(found, key=lambda plugin: (plugin.name, plugin.distribution, plugin.value))
    return tuple(order), tuple(sorted(lists))


def _entries() -> list[EntryPoint]:
    """Entry points in our groups. A malformed list of one distribution hides no other's."""
    groups = [f"{BUILT_IN}.{kind}" for kind in (*SINGULAR, "commands")]
    try:
        every = entry_points()
        return [entry for group in groups for entry in every.select(group=group)]
    except Exception:  # whatever the parser makes of it
        return [entry for entry in _entries_one_by_one() if entry.group in groups]


def _entries_one_by_one() -> Iterator[EntryPoint]:
    for distribution in distributions():
        try:
            entries = list(distribution.entry_points)
        except Exception as error:
            logger.warning(
                "The entry points of %s cannot be read, so it offers no plugins (%s: %s). "
                "Reinstall or remove it.",
                " ".join(_identity(distribution)),
                type(error).__name__,
                error,
            )
            continue
        yield from entries


def _identity(distribution: Distribution | None) -> tuple[str, str]:
    """Name and version."""
    if distribution is None:
        return "unknown", "unknown"
    return distribution.name or "unknown", distribution.version or "unknown"
