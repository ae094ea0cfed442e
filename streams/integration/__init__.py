"""For other programs: publish what happened, and hear of kills. Importing this needs neither Faust nor a broker.

``on_variant_posted`` is for synchronous callers, ``EventPublisher`` and ``KillSubscriber`` for asyncio.
"""

from streams.integration.blocking import on_variant_posted
from streams.integration.kills import DecidingEvent, VariantKilled
from streams.integration.landing import Landed, NotPublished
from streams.integration.publisher import EventPublisher
from streams.integration.subscriber import KillSubscriber

__all__ = ["DecidingEvent", "EventPublisher", "KillSubscriber", "Landed", "NotPublished", "VariantKilled", "on_variant_posted"]
