"""What every client of Kafka in this package does alike: settings from the environment unless they are given, and ``async with``."""

from __future__ import annotations

from abc import ABC, abstractmethod
from types import TracebackType
from typing import TYPE_CHECKING, Self

from streams.environment import load_settings

if TYPE_CHECKING:
    from streams.settings import Settings


class Client(ABC):
    """Connects with ``start``, and leaves with ``stop``; ``async with`` does both."""

    def __init__(self, settings: Settings | None) -> None:
        self._settings = load_settings() if settings is None else settings

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self.stop()

    @abstractmethod
    async def start(self) -> None:
        """Connect."""

    @abstractmethod
    async def stop(self) -> None:
        """Disconnect; does nothing where nothing is connected."""
