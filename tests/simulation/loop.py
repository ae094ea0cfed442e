"""An event loop whose clock stands still while anything can run, and that can be cut off between any two steps."""

from __future__ import annotations

import asyncio
import heapq
from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any


class Handle:
    """One callback that is due."""

    __slots__ = ("args", "callback", "is_cancelled")

    def __init__(self, callback: Callable[..., object], args: tuple[Any, ...]) -> None:
        self.callback, self.args, self.is_cancelled = callback, args, False

    def cancel(self) -> None:
        self.is_cancelled = True


class _AtOnce:
    """Stands for every callback that is due at once: asyncio never cancels one of these."""

    def cancel(self) -> None:
        raise NotImplementedError("what is due at once cannot be cancelled here")


_AT_ONCE = _AtOnce()


class SimulatedLoop(asyncio.AbstractEventLoop):
    """Runs callbacks in order; when none is ready, time jumps to the next timer. Moments are integer microseconds.

    Attributes:
        now: The time.
        has_to_stop: Set it, and ``run`` returns before the next callback.
    """

    def __init__(self, now: int) -> None:
        self.now = now
        self.has_to_stop = False
        self._ready: deque[tuple[Callable[..., object], tuple[Any, ...]]] = deque()
        self._timers: list[tuple[int, int, Handle]] = []
        self._made = 0
        self._tasks: set[asyncio.Task[Any]] = set()

    # -- what asyncio asks of a loop ---------------------------------------------------------------------------------

    def time(self) -> float:
        return self.now / 1e6

    get_debug = staticmethod(bool)  # False, and no call in Python: every future asks

    def is_running(self) -> bool:
        return True

    def is_closed(self) -> bool:
        return False

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        """Say nothing: whoever needs to know of a task's error asks the task."""

    def call_soon(self, callback: Callable[..., object], *args: Any, context: object = None) -> Any:  # noqa: ARG002 - asyncio's signature
        self._ready.append((callback, args))
        return _AT_ONCE

    def call_later(self, delay: float, callback: Callable[..., object], *args: Any, context: object = None) -> Any:  # noqa: ARG002 - asyncio's signature
        handle = Handle(callback, args)
        self._made += 1
        heapq.heappush(self._timers, (self.now + round(delay * 1e6), self._made, handle))
        return handle

    def call_at(self, when: float, callback: Callable[..., object], *args: Any, context: object = None) -> Any:  # noqa: ARG002 - asyncio's signature
        return self.at(round(when * 1e6), callback, *args)

    def at(self, when: int, callback: Callable[..., object], *args: Any) -> Handle:
        """Run ``callback`` at ``when``; timers of one moment run in the order they were made."""
        handle = Handle(callback, args)
        self._made += 1
        heapq.heappush(self._timers, (when, self._made, handle))
        return handle

    def create_future(self) -> asyncio.Future[Any]:
        return asyncio.Future(loop=self)

    def create_task(self, coro: Coroutine[Any, Any, Any], *, name: str | None = None, context: object = None) -> asyncio.Task[Any]:  # type: ignore[override]  # noqa: ARG002
        task = asyncio.Task(coro, loop=self, name=name or "")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    # -- what a simulation asks of it --------------------------------------------------------------------------------

    def run(self, until: int, steps: int | None = None) -> None:
        """Run up to the moment ``until``, or for at most ``steps`` callbacks, or until it has to stop."""
        left = -1 if steps is None else steps
        ready, timers = self._ready, self._timers
        asyncio._set_running_loop(self)
        try:
            while left and not self.has_to_stop:
                if ready:
                    callback, args = ready.popleft()
                    callback(*args)
                    left -= 1
                elif timers and timers[0][0] <= until:
                    when, _, handle = heapq.heappop(timers)
                    if when > self.now:  # noqa: PLR1730 - max() would cost every timer a call
                        self.now = when
                    if not handle.is_cancelled:
                        handle.callback(*handle.args)
                        left -= 1
                else:
                    self.now = max(self.now, until)
                    return
        finally:
            asyncio._set_running_loop(None)

    def destroy(self) -> None:
        """End every task where it stands, as a SIGKILL does: nothing it would still have done happens."""
        asyncio._set_running_loop(self)
        try:
            for task in list(self._tasks):
                task._log_destroy_pending = False  # type: ignore[attr-defined]
                coroutine = task.get_coro()
                if coroutine is not None and not task.done():
                    coroutine.close()
            self._ready.clear()
            self._timers.clear()
        finally:
            asyncio._set_running_loop(None)
