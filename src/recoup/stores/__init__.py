"""Journal, key-value and model stores: SQLite by default, fakes in memory beside them."""

from recoup.stores.journal import SqliteJournal
from recoup.stores.keyvalue import SqliteKeyValue
from recoup.stores.memory import MemoryJournal, MemoryKeyValue
from recoup.stores.registry import Registry, Version

__all__ = [
    "MemoryJournal",
    "MemoryKeyValue",
    "Registry",
    "SqliteJournal",
    "SqliteKeyValue",
    "Version",
]
