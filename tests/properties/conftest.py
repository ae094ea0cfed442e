"""How properties are searched: the same examples each time, unless ``EARLY_KILL_HYPOTHESIS=long`` asks for many new ones."""

from __future__ import annotations

import os

from hypothesis import settings

settings.register_profile("ci", derandomize=True, deadline=None, max_examples=300)
settings.register_profile("long", deadline=None, max_examples=20_000)
settings.load_profile(os.environ.get("EARLY_KILL_HYPOTHESIS", "ci"))
