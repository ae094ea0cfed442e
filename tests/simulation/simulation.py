"""Histories, lives and crashes put together."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from models.session import Result
from streams.changelog import Overtaken
from tests.simulation.broker import Broker
from tests.simulation.claims import Run, Violation, check_accounts, check_forgotten, check_rest, check_told, check_written_again, claim, pin
from tests.simulation.dice import Dice
from tests.simulation.history import DAY, SECOND, Shape
from tests.simulation.oracle import judge
from tests.simulation.plan import Ending, LifePlan, Plan
from tests.simulation.worker import CHANGELOGS, COMPACTION_LAG, FLUSH_PAUSE, Life

SETTLING = int(FLUSH_PAUSE * SECOND) + 10 * SECOND
"""Microseconds after the last deadline within which everything is told, also where flushes take long and so come seldom, and few records are fetched at a time."""
RESTING = int(FLUSH_PAUSE * SECOND) + 500_000
"""Microseconds for which nothing may happen any more: a flush, a look at what is due and a commit fall into them."""
LOOK = 250_000
"""Microseconds until the next look whether all is done."""
AT_A_TIME = 10_000
"""Microseconds that one of two workers is ahead of the other at most."""
MOST_OVERTAKEN = 8
TOLD = ("variant_killed", "monitoring_record", "dead_letter")


def run_plan(plan: Plan, diary: list[tuple[int, str]] | None = None) -> Run:
    """Let a monitor live through a plan, and note in ``diary`` (moment, what) how it does.

    Raises:
        Violation: Something does not hold.
    """
    history = plan.history
    broker = Broker(history.records, visible_after=plan.visible_after)
    run = Run(history, broker, diary=[] if diary is None else diary)
    now = plan.begin
    lingering: Life | None = None
    for life_plan in plan.lives:
        now += life_plan.pause
        _compact(run, now, plan.shape)
        run.note(now, f"life {life_plan.number} begins")
        life = Life(broker, plan.setting, Dice(f"life {plan.seed} {life_plan.number}"), now)
        _live(life_plan, life, lingering, run)
        lingering = life if life_plan.ending is Ending.LINGERS else None
        life.stands_still = plan.seed % 2 == 0
        now = life.loop.now
    now += plan.last_pause if plan.lives else 0
    horizon = history.end + history.longest + history.grace + history.wait + SETTLING
    for attempt in range(MOST_OVERTAKEN):
        _compact(run, now, plan.shape)
        run.note(now, "the last life begins")
        life = Life(broker, plan.setting, Dice(f"life {plan.seed} last {attempt}"), now)
        until = max(horizon, now + history.wait + SETTLING, *(at + SETTLING for at, _, _ in broker.straying))
        if _live_to_the_end(plan, life, lingering, until, run):
            return run
        now, lingering = life.loop.now + SECOND, None
    raise Violation("a worker that is overtaken gets its partitions back in the end")


def _live_to_the_end(plan: Plan, life: Life, lingering: Life | None, until: int, run: Run) -> bool:
    """Live on until nothing is left to be done, and check that; False if another one's writes have got in between."""
    first, began = dict(run.broker.committed), life.loop.now
    try:
        if not _share_the_log(life, lingering, until, None, run, _Rest(run, life).has_lasted):
            return False
        check_rest(run, life, first)
        check_written_again(run, began)
        check_told(run, judge(plan.history), plan.shape)
        told = run.broker.count_told(TOLD)
        life.loop.now += DAY
        if not _share_the_log(life, None, life.loop.now + SETTLING, None, run, lambda: _is_forgotten(run, life)):
            return False
        check_forgotten(run, life)
        claim(plan.shape.strays or run.broker.count_told(TOLD) == told, "a day later nothing more is told", told)
    finally:
        _note_owner(run, life)
        _note(run, life)
        life.crash()
    return True


def _live(plan: LifePlan, life: Life, lingering: Life | None, run: Run) -> None:
    left = max(run.history.end + run.history.longest - life.loop.now, SECOND)
    if plan.is_at_once:
        is_whole = _share_the_log(life, lingering, life.loop.now + left, plan.steps, run)
    else:
        until = life.loop.now + int(plan.share * left)
        is_whole = _share_partitions(plan, life, lingering, until, run) if plan.rebalances else _share_the_log(life, lingering, until, None, run)
        is_whole = is_whole and _share_the_log(life, None, life.loop.now + SECOND, plan.steps, run)
    if is_whole:
        check_accounts(life)
    _note_owner(run, life)
    ending = plan.ending if is_whole else Ending.CRASHES
    run.note(life.loop.now, f"life {plan.number} {ending if is_whole else 'has been overtaken'}")
    _end(ending, life, run)
    _note(run, life)
    pin(run)


def _share_partitions(plan: LifePlan, life: Life, lingering: Life | None, until: int, run: Run) -> bool:
    """Live on in a group that another worker joins, with as many rebalances as the plan says; in the end the other one dies, and this one has all partitions again.

    Returns:
        False if it has to start anew, as one of them has been overtaken.
    """
    began, partitions = life.loop.now, run.broker.partitions
    moments = [began + int(share * (until - began)) for share, _ in plan.rebalances]
    if not _share_the_log(life, lingering, moments[0], None, run):
        return False
    other = life.companion()
    try:
        for (_, kept), end in zip(plan.rebalances, [*moments[1:], until], strict=True):
            own = {partition for partition in partitions if kept >> partition & 1}
            run.note(life.loop.now, f"a rebalance: life {plan.number} gets {sorted(own)}, the other worker the rest")
            run.rebalances += 1
            for one in (life, other):
                one.let_go()
            life.assign(own)
            other.assign(partitions - own)
            while life.loop.now < end:
                for one in (life, other):
                    one.run(min(one.loop.now + AT_A_TIME, end))
        check_accounts(other)
    except Overtaken:
        run.overtaken += 1
        return False
    finally:
        _note_owner(run, other)
        other.crash(strays=other.setting.strays)
        _note(run, other)
        life.log.expect_strays()
    life.let_go()
    life.assign(partitions)
    return True


def _end(ending: Ending, life: Life, run: Run) -> None:
    if ending is Ending.STOPS:
        life.stop()
        run.stops += 1
    elif ending is Ending.LINGERS:
        life.is_outside = True
        run.lingering += 1
    else:
        life.crash(strays=ending is Ending.HANGS)
        run.crashes += 1
        run.hung += ending is Ending.HANGS


def _compact(run: Run, now: int, shape: Shape) -> None:
    """Let the broker compact: it may at any time, but leaves what is young.

    Time in which nobody owns the partitions does not count: that it is shorter than what compaction leaves alone (5 minutes) is what the system rests on.
    """
    if shape.strays:
        now = min(now, run.owned_until)
        for name, partition in list(run.broker.appended):
            if name in CHANGELOGS:
                run.broker.compact(name, partition, now - COMPACTION_LAG)


@dataclass(slots=True)
class _Rest:
    """Whether nothing is left that could still happen before the day is over; ``check_rest`` looks closer, and says what there is."""

    run: Run
    life: Life
    begun: int | None = None

    def has_lasted(self) -> bool:
        """Tell whether it has lasted long enough to believe in it."""
        if not self._is_there():
            self.begun = None
            return False
        if self.begun is None:
            self.begun = self.life.loop.now
        return self.life.loop.now - self.begun >= RESTING

    def _is_there(self) -> bool:
        broker, monitors = self.run.broker, self.life.monitors
        return (
            not broker.straying
            and len(monitors) == len({tp.partition for tp in broker.sources})
            and all(broker.committed.get(tp, 0) == len(records) for tp, records in broker.sources.items())
            and not any(monitor.active_count or monitor.waiting.count or any(s.start_pending or s.end_pending for s in monitor.sessions) for monitor in monitors)
            and not self.life.busy_workers()
            and not self.life.has_to_flush
        )


def _is_forgotten(run: Run, life: Life) -> bool:
    return not any(monitor.sessions for monitor in life.monitors) and not any(run.broker.recovered(name, tp.partition).content for name in CHANGELOGS for tp in run.history.records)


def _share_the_log(life: Life, lingering: Life | None, until: int, steps: int | None, run: Run, is_over: Callable[[], bool] | None = None) -> bool:
    """Let a worker live beside one that does not know that its partitions are another's.

    Args:
        life: The one that has the partitions.
        lingering: The other one, if there is one.
        until: So long at most.
        steps: So many steps at most, without the other one.
        run: What is noted.
        is_over: When the other one is gone, tells now and then whether it has lived for long enough.

    Returns:
        False if it has to start anew, as it has been overtaken.
    """
    begins = lingering is not None and not lingering.stands_still
    try:
        while lingering is not None and steps is None and life.loop.now < until:
            if not begins:
                life.run(min(life.loop.now + AT_A_TIME, until))
            begins = False
            try:
                lingering.run(life.loop.now)
            except Overtaken:
                run.overtaken += 1
                lingering.crash(strays=True)
                life.log.expect_strays()
                lingering = None
        if is_over is None:
            life.run(until, steps)
        while is_over is not None and life.loop.now < until and not is_over():
            life.run(min(life.loop.now + LOOK, until))
    except Overtaken:
        run.overtaken += 1
        return False
    finally:
        if lingering is not None:
            lingering.crash(strays=True)
    return True


def _note_owner(run: Run, life: Life) -> None:
    if life.monitors:
        run.owned_until = life.loop.now


def _note(run: Run, life: Life) -> None:
    run.redelivered += life.tally.results[Result.REDELIVERED]
    run.unacknowledged += life.log.failed
    run.strays += life.log.strayed
    run.restored += life.restored_waiting
