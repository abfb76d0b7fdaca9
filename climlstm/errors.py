"""Everything that can be wrong with what a user gave us, as exceptions.

Each is a `ClimLSTMError` and also the builtin it resembles. A message says what is wrong, where,
which value was found, what was expected and what to do. The command line prints these without
a traceback; any other exception is a bug of ours and shows all.
"""

import difflib
from collections.abc import Iterable


class ClimLSTMError(Exception):
    """Something that the user can put right."""


class ConfigError(ClimLSTMError, ValueError):
    """A run file that cannot be read, or says something impossible."""


class CatalogError(ClimLSTMError, LookupError):
    """A catalog or one of its sources that cannot be opened."""


class DataError(ClimLSTMError, ValueError):
    """Data that are not what they claim, or not what was asked for."""


class PluginError(ClimLSTMError, LookupError):
    """A plugin that is missing, broken, ambiguous or wrongly used."""


class CheckpointError(ClimLSTMError, ValueError):
    """A checkpoint that is missing, damaged or does not fit."""


class StorageError(ClimLSTMError, OSError):
    """A place for checkpoints that does not take them."""


class OutputError(DataError, OSError):
    """Output that cannot be written: no room, no permission, or something in the way."""


class TrainingError(ClimLSTMError, RuntimeError):
    """A training run that cannot go on."""


class Stopped(ClimLSTMError, RuntimeError):
    """A run that ended early because it was asked to; what it had done is kept."""


class ClusterError(ClimLSTMError, ConnectionError):
    """A cluster that loses work faster than it can be done again."""


class BusyError(ClimLSTMError, BlockingIOError):
    """Something that another process is writing just now."""


class MissingExtraError(ClimLSTMError, ImportError):
    """An optional library that this command needs is not installed."""


def missing_extra(purpose: str, extra: str, cause: ImportError) -> MissingExtraError:
    """The error for an optional dependency that is not there, with the command that installs it."""
    return MissingExtraError(
        f"{purpose} needs the package '{cause.name}', which is not installed. "
        f"Install it with: pip install 'climlstm[{extra}]'"
    )


def nearest(word: str, candidates: Iterable[str]) -> str:
    """' Did you mean ...?' for the candidate closest to a mistyped word, or nothing."""
    matches = difflib.get_close_matches(word, list(candidates), n=1)
    return f" Did you mean '{matches[0]}'?" if matches else ""
