"""One Kafka and one PostgreSQL behind proxies, for all tests here that break the way to them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.servers import Servers, serving


@pytest.fixture(scope="session")
def servers(servers_home: Path) -> Iterator[Servers]:
    """A test that stops one of them has to have it running again when it ends."""
    with serving(servers_home / "faults") as there:
        yield there
