"""What a worker would say to an event, said before it is sent."""

from __future__ import annotations

import pytest

from models.errors import Reject
from models.moments import DAY, SECOND, format_moment
from streams.clock import wall_clock
from streams.integration.checking import checked


def test_a_post_whose_window_closed_more_than_a_day_ago_is_refused_before_it_is_sent() -> None:
    """A monitor would send it to ``dead_letter``: 10 minutes of monitoring, and the day. Without a time-out of its own that depends on the monitor."""
    post = {"variant_id": "v", "persona_id": "ada", "post_id": "p", "timeout_minutes": 10}
    assert checked("variant_posted", {**post, "posted_at": format_moment(wall_clock() - DAY - 590 * SECOND)})
    with pytest.raises(Reject, match="posted_at: its monitoring window closed more than a day ago"):
        checked("variant_posted", {**post, "posted_at": format_moment(wall_clock() - DAY - 601 * SECOND)})
    assert checked("variant_posted", {**post, "posted_at": format_moment(wall_clock() - 29 * DAY), "timeout_minutes": None})
