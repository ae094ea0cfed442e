"""The sessions of one partition: found by variant and post, in the least memory."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from models.session import Session


@dataclass(slots=True)
class Sessions:
    """Sessions by variant. Nearly every variant has one, so its others hang on that one, in a chain, and need no container.

    Attributes:
        heads: The first session of each variant's chain (``Session.older``).
    """

    heads: dict[str, Session] = field(default_factory=dict)

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __iter__(self) -> Iterator[Session]:
        """Yield every session, in no order."""
        for head in self.heads.values():
            session: Session | None = head
            while session is not None:
                yield session
                session = session.older

    def of(self, variant_id: str) -> list[Session]:
        """Return all sessions of a variant, in no order."""
        found = []
        session = self.heads.get(variant_id)
        while session is not None:
            found.append(session)
            session = session.older
        return found

    def find(self, variant_id: str, post_id: str) -> Session | None:
        """Return the session of one posting; None if there is none."""
        session = self.heads.get(variant_id)
        while session is not None and session.post_id != post_id:
            session = session.older
        return session

    def add(self, session: Session) -> None:
        """Take in a session, which must not be here yet."""
        session.older = self.heads.get(session.variant_id)
        self.heads[session.variant_id] = session

    def remove(self, session: Session) -> None:
        """Take out a session that is here."""
        rest = [other for other in self.of(session.variant_id) if other is not session]
        del self.heads[session.variant_id]
        for other in rest:
            self.add(other)
