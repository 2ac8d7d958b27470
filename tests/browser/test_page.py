"""The page in a real Chromium: what a person sees, and that it stays ours, safe and light."""

from __future__ import annotations

import re
import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from playwright.async_api import Browser, ConsoleMessage, Page, Request, async_playwright, expect

from shared.bus.memory import MemoryBus, MemoryServer
from tests.browser.serving import Served, running_engine, served
from tests.browser.story import Story

pytestmark = pytest.mark.browser

# Headless, as root, and without Chromium's own conversations with the outside.
FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
HOSTILE = "<img src=x onerror=document.title='owned'>"


class Seen:
    """A page that is open, and all that it asked for or complained of."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.complaints: list[str] = []
        self.asked: list[str] = []
        page.on("console", self._on_console)
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.on("request", self._on_request)

    def _on_console(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            self.complaints.append(message.text)

    def _on_request(self, request: Request) -> None:
        self.asked.append(request.url)


@pytest.fixture
async def browser() -> AsyncIterator[Browser]:
    chromium = shutil.which("chromium")
    if chromium is None:
        pytest.skip("there is no chromium: apt-get install chromium")
    async with async_playwright() as playwright:
        made = await playwright.chromium.launch(executable_path=chromium, args=FLAGS)
        yield made
        await made.close()


@pytest.fixture
async def bus() -> MemoryServer:
    return MemoryServer()


@pytest.fixture
async def story(bus: MemoryServer) -> Story:
    made = Story(MemoryBus(bus))
    await made.begin()
    return made


@pytest.fixture
async def house(bus: MemoryServer, story: Story) -> AsyncIterator[Served]:
    """ops_api on a story of 300 bars."""
    await story.bars(300)
    async with served(bus) as made:
        await story.health(made.host.clock.wall())
        yield made


async def opened(browser: Browser, address: str, **context: Any) -> Seen:
    seen = Seen(await browser.new_page(viewport={"width": 1440, "height": 1000}, **context))
    await seen.page.goto(address)
    return seen


async def test_a_person_sees_the_whole_house_at_once(
    browser: Browser, house: Served, story: Story, tmp_path: Path
) -> None:
    seen = await opened(browser, house.address)
    page = seen.page

    await expect(page.locator("#trades tr").first).to_contain_text("USDT")
    for shown in ("simulated market", "paper", "active", f"{story.at:%Y-%m-%d %H:%M} UTC"):
        await expect(page.locator("header")).to_contain_text(shown)
    await expect(page.locator("#figures")).to_contain_text("Sharpe, annual")
    assert await page.locator(".sleeve").count() == 3
    await expect(page.locator(".preset.chosen")).to_have_count(3)
    await expect(page.locator("#record")).to_contain_text("net_return must be > 0.0, was -0.012")
    await expect(page.locator("#services .ready").first).to_be_visible()
    await expect(page.locator("#services .waiting")).to_contain_text("waits for bars")
    await expect(page.locator("#price-chart canvas").first).to_be_visible()
    await expect(page.locator("#equity-chart canvas").first).to_be_visible()
    await expect(page.locator("#notice")).to_be_hidden()
    await page.screenshot(path=tmp_path / "page.png", full_page=True)

    assert seen.complaints == []
    assert [url for url in seen.asked if not url.startswith(house.address)] == []


async def test_the_figures_on_the_page_are_those_of_the_service(browser: Browser, house: Served) -> None:
    page = (await opened(browser, house.address)).page
    await expect(page.locator("#trades tr").first).to_contain_text("USDT")

    stats = await page.evaluate("fetch('/trades/stats').then((answer) => answer.json())")

    figures = await page.locator("#figures").inner_text()
    assert f"{stats['net_profit']:+,.2f}" in figures
    assert f"{100 * stats['win_rate']:.1f} %" in figures
    assert f"{stats['sharpe']:.2f}" in figures
    assert await page.locator("#trades tr").count() == stats["total_trades"]


async def test_a_click_on_a_trade_tells_why(browser: Browser, house: Served) -> None:
    page = (await opened(browser, house.address)).page

    await page.locator("#trades tr").first.click()

    why = page.locator("#why")
    await expect(why).to_be_visible()
    for told in (
        "was read as BULL",
        "the odds were",
        "wants an exposure of +1.00",
        "Filled: buy",
        "The bandit learned",
    ):
        await expect(why).to_contain_text(told)


async def test_before_the_first_model_the_page_says_what_trades(
    browser: Browser, bus: MemoryServer, story: Story
) -> None:
    await story.bars(20)
    async with served(bus) as house:
        page = (await opened(browser, house.address)).page

        await expect(page.locator("#notice")).to_contain_text("no model yet, so default presets trade")
        await story.bars(30)
        await expect(page.locator("#notice")).to_be_hidden()


async def test_what_others_wrote_is_shown_as_text(browser: Browser, house: Served, story: Story) -> None:
    seen = await opened(browser, house.address)

    await story._record("preset", story.instruments[0], "f" * 64, "refused", (HOSTILE,))

    await expect(seen.page.locator("#record")).to_contain_text(HOSTILE)
    assert await seen.page.locator("#record img").count() == 0
    assert await seen.page.title() == "Trimtab"
    await seen.page.locator("#record li").first.click()
    await expect(seen.page.locator("#why")).to_contain_text(HOSTILE)
    assert await seen.page.locator("#why img").count() == 0
    assert seen.complaints == []


async def test_only_who_logged_in_may_command_and_is_asked_first(
    browser: Browser, bus: MemoryServer, house: Served
) -> None:
    looker = (await opened(browser, house.address)).page
    await expect(looker.locator("[data-verb=halt]")).to_be_disabled()
    await expect(looker.locator("[data-verb=halt]")).to_have_attribute("title", re.compile("link with a login"))

    async with running_engine(bus) as engine:
        page = (await opened(browser, f"{house.address}/?login=once")).page
        assert page.url == f"{house.address}/"
        await page.locator("[data-verb=halt]").click()
        await page.get_by_role("button", name="Leave it").click()
        await page.locator("[data-verb=flatten]").click()
        await page.locator("#confirm-yes").click()
        await expect(page.locator("#toast")).to_contain_text("Flatten: done")

        assert [type(command).__name__ for command in engine.commands] == ["Flatten"]
        assert engine.commands[0].actor == "page"


async def test_it_is_readable_in_the_light_and_remembers_it(browser: Browser, house: Served) -> None:
    page = (await opened(browser, house.address, color_scheme="dark")).page
    ground = "getComputedStyle(document.documentElement).backgroundColor"
    dark = await page.evaluate(ground)

    await page.locator("#theme").click()
    light = await page.evaluate(ground)
    await page.reload()

    assert dark != light
    assert await page.evaluate(ground) == light


async def test_a_storm_of_bars_does_not_make_the_page_ask_more_often(
    browser: Browser, house: Served, story: Story
) -> None:
    seen = await opened(browser, house.address)
    await expect(seen.page.locator("#trades tr").first).to_contain_text("USDT")
    before = len(seen.asked)
    began = await seen.page.evaluate("performance.now()")

    await story.bars(1500)
    await expect(seen.page.locator("#venue-time")).to_have_text(f"{story.at:%Y-%m-%d %H:%M} UTC", timeout=20_000)
    took_s = (await seen.page.evaluate("performance.now()") - began) / 1000

    # Seven parts: four at most twice a second, the others once; trades are asked for with the price, too.
    assert len(seen.asked) - before <= 13 * (took_s + 1)
    assert seen.complaints == []
