"""A bounded memory of ids."""

from __future__ import annotations

from collections import OrderedDict
from uuid import UUID


class SeenIds:
    """The latest ids, as many as there is room for."""

    def __init__(self, room: int) -> None:
        self._room = room
        self._ids: OrderedDict[UUID, None] = OrderedDict()

    def add(self, item: UUID) -> bool:
        """Remember an id; True if it was not remembered already."""
        if item in self._ids:
            self._ids.move_to_end(item)
            return False
        self._ids[item] = None
        if len(self._ids) > self._room:
            self._ids.popitem(last=False)
        return True
