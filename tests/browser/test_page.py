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
from tests.browser.story import MINUTE, Story, a_basket

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


async def test_a_person_sees_how_the_market_was_read_and_by_which_models(browser: Browser, house: Served) -> None:
    seen = await opened(browser, house.address)
    page = seen.page

    await expect(page.locator("#regime")).to_have_text(re.compile(r"^(BULL|BEAR|CHOP) 84 %$"))
    told = await page.evaluate("fetch('/regime/BTC-USDT/transitions').then((answer) => answer.json())")
    stays = f"{100 * told['empirical'][0][0]:.1f} %"
    await expect(page.locator("#transitions .odds.bull").first).to_have_text(stays)
    await expect(page.locator("#transitions")).to_contain_text("Not known: ml_service at")  # nobody answers there
    await expect(page.locator("#dwell tr").first).to_contain_text(f"{told['dwell']['BULL']['mean_bars']:.1f}")
    await expect(page.locator("#dwell .histogram").first.locator("i")).to_have_count(8)
    models = page.locator("#models tr")
    await expect(models.nth(0)).to_contain_text(re.compile("warm.*5.930.*71 %.*refused.*agreement must be >= 0.8"))
    await expect(models.nth(1)).to_contain_text(re.compile("cold.*5.900.*1.25.*in use.*states_used 3 >= 3"))
    assert seen.complaints == []


async def test_odds_are_stacked_over_their_bars_and_what_was_not_read_is_left_unknown(
    browser: Browser, bus: MemoryServer, story: Story
) -> None:
    await story.bars(120)  # 40 of them before the first model
    async with served(bus) as house:
        page = (await opened(browser, house.address)).page
        await expect(page.locator("#models tr").first).to_contain_text("in use")
        await expect(page.locator("#regime")).to_contain_text("84 %")

        painted = await painted_heights(page)

    known, unknown = painted["known"], painted["unknown"]
    assert unknown["unknown"] > 0.95 * unknown["all"]
    assert known["unknown"] == 0
    shares = sorted(known[name] / known["all"] for name in ("bull", "bear", "chop"))
    assert shares == pytest.approx([0.08, 0.08, 0.84], abs=0.04)  # as the story's readings have them


async def painted_heights(page: Page) -> dict[str, dict[str, int]]:
    """How many pixels of each colour stand over a bar that was not read and over one that was, once they are painted.

    The chart has a row for each pane and one for the edge to the next; the odds are the second pane.
    """
    painted = await page.wait_for_function(
        """() => {
          const styles = getComputedStyle(document.documentElement);
          const names = ["bull", "chop", "bear", "unknown"];
          const rgb = (hex) => [1, 3, 5].map((i) => Number.parseInt(hex.slice(i, i + 2), 16)).join();
          const named = Object.fromEntries(names.map((name) => [rgb(styles.getPropertyValue(`--${name}`).trim()), name]));
          const canvas = document.querySelector("#price-chart tr:nth-child(3) td:nth-child(2) canvas");
          const over = (part) => {
            const { data } = canvas.getContext("2d").getImageData(Math.floor(canvas.width * part), 0, 1, canvas.height);
            const found = { bull: 0, chop: 0, bear: 0, unknown: 0, all: 0 };
            for (let i = 0; i < data.length; i += 4) {
              const name = named[[data[i], data[i + 1], data[i + 2]].join()];
              if (name && data[i + 3] === 255) { found[name] += 1; found.all += 1; }
            }
            return found;
          };
          const [unread, read] = [over(0.1), over(0.6)];
          return unread.all > 20 && read.all > 20 ? { unknown: unread, known: read } : null;
        }"""
    )
    return await painted.json_value()


async def test_a_reading_that_grew_old_is_shown_as_unknown(browser: Browser, house: Served, story: Story) -> None:
    page = (await opened(browser, house.address)).page
    await expect(page.locator("#regime")).to_contain_text("84 %")

    for _ in range(5):  # the market goes on, and nobody reads it
        bar = story.instruments[0].bar(story.at)
        await story.teller.tell(bar, "ingester")
        story.at += MINUTE

    await expect(page.locator("#regime")).to_have_text("UNKNOWN")
    await expect(page.locator("#notice")).to_contain_text("BTC-USDT: regime unknown. The last 5 bars were not read")


async def test_a_basket_is_shown_as_one_market(browser: Browser, house: Served, story: Story) -> None:
    page = (await opened(browser, house.address)).page
    await expect(page.locator("#regime")).to_contain_text("84 %")
    await expect(page.locator("#basket")).to_be_hidden()  # without one

    await story.teller.tell(a_basket(1), "ml_service")

    await expect(page.locator("#basket")).to_have_text("basket BEAR 70 %")


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
        await expect(page.locator("#regime")).to_have_text("UNKNOWN")
        await expect(page.locator("#models")).to_contain_text("No model was trained yet")
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

    # Three parts at most twice a second, the price with its bars, readings and trades; five once, and one each third.
    assert len(seen.asked) - before <= 16 * (took_s + 1)
    assert seen.complaints == []
