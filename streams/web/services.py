"""What the calls need, in one value that is made once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from aiohttp import web

from models.policy import Defaults
from streams.metrics import Metrics
from streams.web.auth import Gate
from streams.web.cluster import Cluster
from streams.web.commands import Commands
from streams.web.lookups import Lookups
from streams.web.page import Page
from streams.web.ports import StorePort
from streams.web.readiness import Readiness
from streams.web.trail import Trail


@dataclass(frozen=True, slots=True, kw_only=True)
class Services:
    """Everything behind the calls; ``now_us`` is the wall clock in microseconds since the epoch."""

    gate: Gate
    cluster: Cluster
    lookups: Lookups
    commands: Commands
    store: StorePort
    trail: Trail
    readiness: Readiness
    metrics: Metrics
    defaults: Defaults
    page: Page
    now_us: Callable[[], int]


SERVICES = web.AppKey("services", Services)
