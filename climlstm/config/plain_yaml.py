"""YAML from anywhere as plain values: no tags, no key twice, no floods of aliases."""

from collections.abc import Hashable
from typing import Any

import yaml

MAX_BYTES = 4_000_000
MAX_VALUES = 200_000
"""No honest file goes beyond these; a few lines of aliases can stand for billions of values."""


class PlainLoader(yaml.SafeLoader):
    """Plain values only, and no key twice."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        keys: set[str] = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode) or key.value == "<<":
                continue
            if key.value in keys:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key '{key.value}' stands there twice", key.start_mark
                )
            keys.add(key.value)
        return super().construct_mapping(node, deep=deep)


class TextDatesLoader(PlainLoader):
    """Dates stay text, so that an impossible one is our error and not PyYAML's."""

    yaml_implicit_resolvers = {  # noqa: RUF012 (PyYAML's own attribute)
        first: [rule for rule in rules if rule[0] != "tag:yaml.org,2002:timestamp"]
        for first, rules in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }


class Flood(yaml.YAMLError):
    """More values than an honest file has."""


def load_yaml(text: str, loader: type[yaml.SafeLoader] = PlainLoader) -> Any:
    """Plain values of a YAML text.

    Values are counted before any is made, each alias where it is used, since aliases and merges of
    merges unfold to their full number.
    Raises yaml.YAMLError, its subclass Flood for too many or too deeply nested values.
    """
    reader = loader(text)
    try:
        node = reader.get_single_node()
        if node is None:
            return None
        if _count(node, {}) > MAX_VALUES:
            raise Flood(f"it unfolds to more than {MAX_VALUES} values by its aliases")
        return reader.construct_document(node)
    except RecursionError as error:
        raise Flood("it is nested too deeply") from error
    except ValueError as error:  # a number of more digits than Python converts, an impossible date
        raise yaml.YAMLError(str(error)) from error
    finally:
        reader.dispose()


def _count(node: yaml.Node, known: dict[int, int]) -> int:
    """Values within a node, each alias counted where it is used."""
    if isinstance(node, yaml.ScalarNode):
        return 1
    if id(node) not in known:
        known[id(node)] = MAX_VALUES + 1  # what contains itself is endless
        pairs = isinstance(node, yaml.MappingNode)
        parts = [n for pair in node.value for n in pair] if pairs else node.value
        known[id(node)] = 1 + sum(_count(part, known) for part in parts)
    return known[id(node)]
