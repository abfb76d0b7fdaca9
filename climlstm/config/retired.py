"""Keys of earlier run files that are gone: refused in a run file, passed over in a checkpoint."""

from collections.abc import Iterator, Mapping
from typing import Any

RETIRED = {"training.cuda_graph": "CUDA graphs were never measured on a GPU"}
"""Each key (`section.key`), and why it went. Run files inside checkpoints and forecasts name every
key, so a key that is deleted from a section is added here."""


def retired_keys(content: Mapping[str, Any]) -> Iterator[str]:
    """The retired keys that a run names."""
    for key in RETIRED:
        section, _, name = key.partition(".")
        keys = content.get(section)
        if isinstance(keys, Mapping) and name in keys:
            yield key


def without_retired(content: Mapping[str, Any]) -> dict[str, Any]:
    """The run without its retired keys."""
    kept = dict(content)
    for key in retired_keys(content):
        section, _, gone = key.partition(".")
        kept[section] = {name: value for name, value in kept[section].items() if name != gone}
    return kept
