"""What all sessions of a server share stays bounded: the results used last, the others dropped."""

from threading import RLock
from typing import Any

from cachetools import LRUCache


class LRU(LRUCache[Any, Any]):
    """Results by what decides them. Other sessions write too: what is kept may be gone at any moment.

    >>> results = LRU(2)
    >>> results.keep("a", 1), results.keep("b", 2), results.get("a"), results.keep("c", 3)
    (1, 2, 1, 3)
    >>> sorted(results)
    ['a', 'c']
    """

    def __init__(self, most: int) -> None:
        super().__init__(maxsize=most)
        self._lock = RLock()

    def __getitem__(self, key: Any) -> Any:
        with self._lock:  # a look-up makes it the one used last
            return super().__getitem__(key)

    def __setitem__(self, key: Any, value: Any) -> None:
        with self._lock:
            super().__setitem__(key, value)

    def __delitem__(self, key: Any) -> None:
        with self._lock:
            super().__delitem__(key)

    def get(self, key: Any, default: Any = None) -> Any:
        with self._lock:
            return super().get(key, default)

    def keep(self, key: Any, result: Any) -> Any:
        """Keep a result and give it back."""
        self[key] = result
        return result
