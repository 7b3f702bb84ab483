"""Journal, key-value and model stores: SQLite by default, fakes in memory beside them."""

from recoup.stores.decision_log import DecisionLog, decisions_frame, logged_decisions
from recoup.stores.journal import SqliteJournal
from recoup.stores.keyvalue import SqliteKeyValue
from recoup.stores.memory import MemoryJournal, MemoryKeyValue
from recoup.stores.registry import Registry, Version

__all__ = [
    "DecisionLog",
    "MemoryJournal",
    "MemoryKeyValue",
    "Registry",
    "SqliteJournal",
    "SqliteKeyValue",
    "Version",
    "decisions_frame",
    "logged_decisions",
]
