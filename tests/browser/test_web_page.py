"""The page for people, in a real browser (Debian's chromium and chromium-driver; skipped where they are not)."""

from __future__ import annotations

import asyncio
import shutil
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from models.moments import MINUTE
from streams.web.memory import ended, recorded
from streams.web.playground import World

webdriver = pytest.importorskip("selenium.webdriver")
pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(not (shutil.which("chromium") and shutil.which("chromedriver")), reason="needs chromium and chromedriver"),
]

HOSTILE = "<img src=x onerror=\"document.title='owned'\"><script>document.title='owned'</script>"
NARROW, WIDE = (390, 844), (1280, 900)


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A headless browser."""
    options = webdriver.ChromeOptions()
    options.binary_location = str(shutil.which("chromium"))
    profile: Path = tmp_path_factory.mktemp("profile")
    quiet = ("--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync")  # it needs nobody but us
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", *quiet, f"--user-data-dir={profile}"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(executable_path=str(shutil.which("chromedriver"))))
    driver.set_page_load_timeout(30)
    driver.set_window_size(*WIDE)
    yield driver
    driver.quit()


class Screen:
    """The browser, driven from beside the event loop that serves the page."""

    def __init__(self, driver: Any) -> None:
        self.driver = driver

    async def open(self, url: str) -> None:
        """Go to the page, with nothing left of the last test."""
        await asyncio.to_thread(self.driver.get, url)

    async def run(self, script: str, *arguments: object) -> Any:
        """Run a script in the page."""
        return await asyncio.to_thread(self.driver.execute_script, script, *arguments)

    async def text(self, selector: str) -> str:
        """What a person can read there; empty if it is hidden."""
        return str(await self.run("const e = document.querySelector(arguments[0]); return e && e.checkVisibility() ? e.innerText : ''", selector))

    async def until(self, selector: str, holds: Callable[[str], object], seconds: float = 15) -> str:
        """Wait until the text there is as wanted."""
        deadline = time.monotonic() + seconds
        while not holds(text := await self.text(selector)):
            assert time.monotonic() < deadline, (selector, text, await self.text("body"))
            await asyncio.sleep(0.05)
        return text


@pytest.fixture
def screen(browser: Any) -> Screen:
    """A clean browser."""
    browser.get("about:blank")
    browser.set_window_size(*WIDE)
    browser.get_log("browser")
    return Screen(browser)


@pytest.fixture
async def world() -> AsyncIterator[World]:
    """One worker."""
    async with World() as made:
        yield made


def now_us() -> int:
    """The wall clock."""
    return time.time_ns() // 1000


async def test_what_is_live_shows_and_goes_on_by_itself(screen: Screen, world: World) -> None:
    """Variant, persona, counts, the rate against the line, the time left; then the end with its reason, without a reload."""
    await screen.open(world.url)
    await screen.until("#live-empty", lambda text: "Nothing is monitored" in text)
    await screen.until("#ends-empty", lambda text: "Nothing has ended" in text)
    session = world.put("v1", "p1", started_at_us=now_us(), deadline_us=now_us() + 10 * MINUTE, views=1234, likes=25)
    row = await screen.until("#live-table tbody tr", lambda text: "v1" in text)
    for shown in ("p1", "persona", "1,234", "25", "2.03 %", "line 3 %", "min"):
        assert shown in row
    assert await screen.run("return document.querySelector('.gauge').className") == "gauge below"
    session = ended(session, "killed", "Below 50% of expected engagement rate", now_us())
    world.workers[0].live.put(session)
    world.store.put(recorded(session, now_us()))
    row = await screen.until("#ends-table tbody tr", lambda text: "v1" in text)
    assert "Below 50% of expected engagement rate" in row
    assert await screen.text("#live-table") == ""
    assert await screen.text("#state") == "Up to date"


async def test_ids_are_text_whatever_they_hold(screen: Screen, world: World) -> None:
    """Nothing that comes from events runs or becomes markup."""
    session = world.put(HOSTILE, HOSTILE, persona_id=HOSTILE, started_at_us=now_us())
    done = ended(world.put("gone", HOSTILE, persona_id=HOSTILE, started_at_us=now_us()), "stopped", HOSTILE, now_us())
    world.workers[0].live.put(done)
    world.store.put(recorded(done))
    await screen.open(world.url)
    assert session.variant_id in await screen.until("#live-table tbody tr", lambda text: "img" in text)
    await screen.until("#ends-table tbody tr", lambda text: "gone" in text)
    assert await screen.run("return document.title") != "owned"
    assert await screen.run("return document.querySelectorAll('img, tbody script').length") == 0


async def test_the_policy_lets_the_page_work_and_nothing_else(screen: Screen, world: World) -> None:
    """No complaint in the console; a script that is slipped in does not run."""
    world.put("v1", started_at_us=now_us(), views=10, likes=1)
    await screen.open(world.url)
    await screen.until("#live-table tbody tr", lambda text: "v1" in text)
    assert [entry for entry in await asyncio.to_thread(screen.driver.get_log, "browser") if entry["level"] == "SEVERE"] == []
    await screen.run("const s = document.createElement('script'); s.textContent = 'document.title = \"owned\"'; document.body.append(s)")
    assert await screen.run("return document.title") != "owned"


async def test_a_guarded_page_asks_for_a_token_and_keeps_it_in_the_tab(screen: Screen) -> None:
    """A wrong one is told so; a read token opens it, also after a reload; forgetting it closes it."""
    async with World(read_tokens=["secret-read-token"]) as world:
        world.put("v1", started_at_us=now_us())
        await screen.open(world.url)
        await screen.until("#ask", lambda text: "token" in text)
        assert "v1" not in await screen.text("body")

        async def give(token: str) -> None:
            await screen.run("document.getElementById('token').value = arguments[0]; document.querySelector('#ask button').click()", token)

        await give("wrong")
        await screen.until("#refused", lambda text: "does not open" in text)
        await give("secret-read-token")
        await screen.until("#live-table tbody tr", lambda text: "v1" in text)
        assert await screen.text("#ask") == ""
        await screen.open(world.url)
        await screen.until("#live-table tbody tr", lambda text: "v1" in text)
        assert await screen.run("return [localStorage.length, document.cookie]") == [0, ""]
        await screen.run("document.getElementById('forget').click()")
        await screen.until("#ask", lambda text: "token" in text)
        assert await screen.text("#live") == ""


async def test_a_forgotten_token_stays_forgotten_whatever_is_under_way(screen: Screen, monkeypatch: pytest.MonkeyPatch) -> None:
    """An answer of a slow database, asked for with the token before, shows nothing any more."""
    async with World(read_tokens=["secret-read-token"]) as world:
        may_answer, read = asyncio.Event(), world.store.sessions

        async def slowly(*arguments: Any) -> Any:
            await may_answer.wait()
            return await read(*arguments)

        monkeypatch.setattr(world.store, "sessions", slowly)
        world.put("v1", started_at_us=now_us())
        await screen.open(world.url)
        await screen.until("#ask", lambda text: "token" in text)
        await screen.run("document.getElementById('token').value = 'secret-read-token'; document.querySelector('#ask button').click()")
        await screen.until("#live-table tbody tr", lambda text: "v1" in text)
        await screen.run("document.getElementById('forget').click()")
        await screen.until("#ask", lambda text: "token" in text)
        may_answer.set()
        await asyncio.sleep(0.5)
        assert (await screen.text("#ends"), await screen.text("#state")) == ("", "A token is needed")


async def test_a_monitor_that_goes_away_is_told_and_its_return_too(screen: Screen, world: World) -> None:
    """What was shown stays, marked as not up to date; it goes on by itself."""
    world.put("v1", started_at_us=now_us())
    await screen.open(world.url)
    await screen.until("#live-table tbody tr", lambda text: "v1" in text)
    await world.stop(world.workers[0])
    await screen.until("#state", lambda text: "cannot be reached" in text)
    assert "v1" in await screen.text("#live-table")
    await world.start(world.workers[0])
    await screen.until("#state", lambda text: text == "Up to date")


async def test_without_postgresql_what_is_live_still_shows(screen: Screen, world: World) -> None:
    """Only the ends are missing, and the page says so."""
    world.store.is_away = True
    world.put("v1", started_at_us=now_us())
    await screen.open(world.url)
    await screen.until("#live-table tbody tr", lambda text: "v1" in text)
    await screen.until("#ends-error", lambda text: "cannot be read" in text)


async def test_the_page_fits_a_phone(screen: Screen, world: World) -> None:
    """Nothing sticks out to the side, also with the longest ids; each number has its label."""
    world.put("x" * 200, "y" * 200, persona_id="z" * 200, started_at_us=now_us(), views=10**12, likes=10**9)
    done = ended(world.put("w" * 200, started_at_us=now_us(), views=5, likes=1), "timed_out", "10-minute monitoring window expired", now_us())
    world.workers[0].live.put(done)
    world.store.put(recorded(done))
    await asyncio.to_thread(screen.driver.set_window_size, *NARROW)
    await screen.open(world.url)
    await screen.until("#live-table tbody tr", lambda text: "xxx" in text)
    await screen.until("#ends-table tbody tr", lambda text: "www" in text)
    width, scroll = await screen.run("return [document.documentElement.clientWidth, document.documentElement.scrollWidth]")
    assert scroll <= width
    label = await screen.run("return getComputedStyle(document.querySelector('#live-table td[data-label=Views]'), '::before').content")
    assert label == '"Views"'
