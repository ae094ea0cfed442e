"""Lets a test hold a worker up for ``STALL_SECONDS``: SIGRTMIN its event loop, SIGRTMIN + 1 the whole interpreter. Python runs this at its start."""

from __future__ import annotations

import ctypes
import os
import signal
import time

if os.environ.get("STALL_SECONDS"):
    seconds = float(os.environ["STALL_SECONDS"])
    signal.signal(signal.SIGRTMIN, lambda *_: time.sleep(seconds))  # other threads go on, as the one with the heartbeats
    signal.signal(signal.SIGRTMIN + 1, lambda *_: ctypes.PyDLL(None).sleep(round(seconds)))  # a PyDLL keeps the interpreter's lock
