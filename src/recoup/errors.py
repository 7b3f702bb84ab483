"""Recoup's exceptions: one tree, so that a host can catch what it means to.

::

    RecoupError
    ├── SourceError      a log that cannot be read at all: missing, empty, truncated, no format
    │   └── MappingError a mapping file that does not fit its table
    ├── SchemaError      columns or types that break a contract
    ├── FeatureError     a feature definition that cannot be compiled
    ├── JournalError     a journal that cannot be opened, or whose bytes do not check
    ├── SnapshotError    state bytes of another version or definition
    ├── ModelError       a model that is absent, or does not fit the features it is given
    └── ConfigError      a setting, scenario or argument out of its range

A row that cannot be understood raises nothing: it becomes a dead letter, with its path and reason.
"""


class RecoupError(Exception):
    """Base of every error that a user's input can cause.

    Parameters
    ----------
    message
        The rule that was broken, then what was got instead.
    hint
        What the user can do about it.

    Examples
    --------
    >>> print(RecoupError("Expected a positive gap, got -3 s", hint="pass session_gap_s > 0"))
    Expected a positive gap, got -3 s
    Hint: pass session_gap_s > 0
    """

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        """Give the message, with the hint on a line of its own."""
        return self.message if self.hint is None else f"{self.message}\nHint: {self.hint}"


class SourceError(RecoupError):
    """A log cannot be read at all: it is missing, empty, truncated, or of no known format."""


class MappingError(SourceError):
    """A mapping file does not parse, or names columns that its table lacks."""


class SchemaError(RecoupError):
    """A frame lacks a column, or holds one of another type than its contract says."""


class FeatureError(RecoupError):
    """A feature definition cannot be compiled."""


class JournalError(RecoupError):
    """A journal cannot be opened or written, or its bytes do not check."""


class SnapshotError(RecoupError):
    """State bytes come from another version, or from another definition."""


class ModelError(RecoupError):
    """A model is absent, or does not fit the features it is given."""


class ConfigError(RecoupError):
    """A setting, scenario or argument is out of its range."""
