"""A migrated database, and records to write into it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import psycopg
import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from models import ids
from models.monitoring_record import Kind, MonitoringRecord
from streams.database import create_engine
from streams.settings import Settings
from streams.store import migrate

POSTED_US = 1_700_000_000_000_000


@pytest.fixture
def database_settings(database: str) -> Settings:
    """Settings on a fresh, empty database; there need not be a Kafka."""
    return Settings.model_validate({"database_url": database})


@pytest.fixture
def migrated(database_settings: Settings) -> Settings:
    """The same, with the schema."""
    migrate(database_settings)
    return database_settings


@pytest.fixture
async def engine(migrated: Settings) -> AsyncIterator[AsyncEngine]:
    """An engine on a migrated database."""
    engine = create_engine(migrated)
    yield engine
    await engine.dispose()


@pytest.fixture
def sql(database: str) -> Iterator[Callable[..., list[tuple[Any, ...]]]]:
    """Runs one statement as anybody else might, and returns its rows."""
    with psycopg.connect(database, autocommit=True, connect_timeout=5) as connection:

        def run(statement: str, *parameters: object) -> list[tuple[Any, ...]]:
            cursor = connection.execute(statement, parameters or None)
            return cursor.fetchall() if cursor.description else []

        yield run


@pytest.fixture
def record() -> Callable[..., MonitoringRecord]:
    """Makes the record of one start or end: ``record("killed", "variant", "post", started_at_us=…)``."""
    return make_record


def make_record(kind: Kind, variant_id: str = "v1", post_id: str = "p1", **changes: Any) -> MonitoringRecord:
    """As the monitor would."""
    session = ids.session_id(variant_id, post_id)
    metadata: dict[str, Any] = {"policy": "ratio", "source": "test"}
    fields: dict[str, Any] = {}
    if kind != "started":
        metadata |= {"counts": {"view": 500, "like": 10}, "deciding_event": {"topic": "interaction", "partition": 0, "offset": 7, "occurred_at": "2023-11-14T22:14:20.000001Z"}}
        fields |= {"ended_at_us": POSTED_US + 60_000_001, "decided_at_us": POSTED_US + 61_000_000, "kill_reason": f"reason of {kind}"}
        fields |= {"final_engagement_rate": 0.02, "final_interaction_count": 10, "final_view_count": 500}
    if kind == "killed":
        fields |= {"kill_id": ids.kill_id(session), "kill_reason": "Below 50% of expected engagement rate"}
    fields |= {"expected_engagement_rate": 0.06, "kill_threshold": 0.5, "min_interactions": 10, "timeout_minutes": 10.0, "policy": "ratio"}
    fields |= {"record_id": ids.record_id(session, kind), "session_id": session, "persona_id": "anna", "started_at_us": POSTED_US, "monitoring_metadata": metadata}
    return MonitoringRecord(kind=kind, variant_id=variant_id, post_id=post_id, **fields | changes)
