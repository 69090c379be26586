"""The newest of many results, the oldest dropped first: what all sessions of a server share stays bounded."""

from collections import OrderedDict
from typing import TypeVar

T = TypeVar("T")


class LRU(OrderedDict[object, T]):
    """Results by what decides them. Other sessions write too: what is kept may be gone at any moment.

    Attributes:
        most: so many are kept.
    """

    def __init__(self, most: int) -> None:
        super().__init__()
        self.most = most

    def keep(self, key: object, result: T) -> T:
        """Keep a result, as the newest, and give it back."""
        self.pop(key, None)
        self[key] = result
        while len(self) > self.most:
            self.popitem(last=False)
        return result
