"""Secrets: kept out of run files, and with that out of checkpoints, records, forecasts and logs.

Credentials belong into the environment, or a catalog's `storage_options`, which no record holds.
"""

import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qsl, urlsplit

HIDDEN = "***"

_SECRET = re.compile(
    r"(?i)secret|token|passw|credential|signature|^sig$|api_?key|access_?key|private_?key|authorization"
)
"""Parts of names of keys whose values are secret."""

_USER = re.compile(r"(?<=://)[^/\s@'\"]+@")
_QUERY = re.compile(r"([?&;]([\w.-]+)=)[^&\s'\"<>)\],]+")
_PAIR = re.compile(
    r"""(?ix)(["']?[\w-]*(?:secret|token|passw(?:or)?d|credential|api_?key|access_?key|authorization)
    [\w-]*["']?\s*[:=]\s*)(?:(bearer|basic)\s+)?(["']?)[^\s"',;&}\])]+\3"""
)


def redact(text: str) -> str:
    """A text for people and records: users, passwords and tokens in URLs and pairs are hidden."""
    text = _USER.sub(f"{HIDDEN}@", text)
    text = _QUERY.sub(lambda m: m[1] + HIDDEN if _SECRET.search(m[2]) else m[0], text)
    return _PAIR.sub(lambda m: m[1] + HIDDEN, text)


def secret_in_url(url: str) -> str | None:
    """The secret in a URL ('a user or password', the name of a key), or None."""
    parts = urlsplit(url)
    if "@" in parts.netloc:
        return "a user or password before '@'"
    named = [key for key, _ in parse_qsl(parts.query) if _SECRET.search(key)]
    return f"'{named[0]}'" if named else None


def secret_in(values: Mapping[str, Any]) -> str | None:
    """The name of a key whose value is a secret, also in URLs and mappings inside, or None."""
    for key, value in values.items():
        if _SECRET.search(str(key)):
            return f"'{key}'"
        if isinstance(value, Mapping):
            inner = secret_in(value)
        else:
            inner = secret_in_url(value) if isinstance(value, str) and "://" in value else None
        if inner is not None:
            return inner
    return None


def without_secrets(values: dict[str, Any]) -> dict[str, Any]:
    """The values as they are. Raises ValueError where a secret is in them."""
    if (found := secret_in(values)) is not None:
        raise ValueError(
            f"{found} is a secret, and a run file is copied into every checkpoint. Put it into the "
            "environment, and name it in the catalog's storage_options as '{{ env(NAME) }}'"
        )
    return values
