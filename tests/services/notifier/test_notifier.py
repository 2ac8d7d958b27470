"""The notifier against local servers that answer as Telegram's Bot API and Slack's webhooks do."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

import pytest
from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse, PlainTextResponse

from services.notifier import sending
from services.notifier.service import HEARD, SERVICE
from services.notifier.settings import NotifierSettings
from shared.bus.memory import MemoryBus, MemoryServer
from shared.contracts import subjects as said
from shared.contracts.operations import Alert, Health, Notified
from shared.contracts.times import to_ms
from shared.contracts.wire import Message, message_id, open_envelope, unpack
from shared.runtime.clock import VenueClock
from shared.runtime.service import Host
from shared.runtime.store import Store
from tests.browser.story import Story, Teller
from tests.pure.notifier.test_notes import AT, alert, breaker, trade
from tests.serving import listening

TOKEN = "123456:secret-token"
Answering = Callable[[], Response]


def flood(seconds: int) -> Answering:
    """Telegram's answer to who says too much."""
    body = {
        "ok": False,
        "error_code": 429,
        "description": f"Too Many Requests: retry after {seconds}",
        "parameters": {"retry_after": seconds},
    }
    return lambda: JSONResponse(body, status_code=429)


def failing(code: int, description: str = "Bad Gateway") -> Answering:
    return lambda: JSONResponse({"ok": False, "error_code": code, "description": description}, status_code=code)


class Outside:
    """Both services on one port. What is next in `answers` is said instead of yes; `texts` are those that were taken."""

    def __init__(self) -> None:
        self.answers: deque[Answering] = deque()
        self.texts: dict[str, list[str]] = {"telegram": [], "slack": []}
        self.asked_at: list[float] = []
        self.silent_for = 0
        self.app = FastAPI()
        self.address = ""
        self._more = asyncio.Event()

        @self.app.post("/bot{token}/sendMessage")
        async def send_message(token: str, request: Request) -> Response:
            form = dict(parse_qsl((await request.body()).decode()))
            if token != TOKEN:
                return failing(401, "Unauthorized")()
            ok = {"ok": True, "result": {"message_id": 1, "date": 1, "chat": {"id": 42, "type": "group"}}}
            return await self._take("telegram", form["text"], JSONResponse(ok))

        @self.app.post("/services/T/B/X")
        async def webhook(request: Request) -> Response:
            return await self._take("slack", (await request.json())["text"], PlainTextResponse("ok"))

    async def _take(self, channel: str, text: str, yes: Response) -> Response:
        self.asked_at.append(asyncio.get_running_loop().time())
        self._more.set()
        if self.answers:
            return self.answers.popleft()()
        self.texts[channel].append(text)
        if self.silent_for:
            self.silent_for -= 1
            await asyncio.sleep(1.5)  # longer than anyone waits for
        return yes

    async def until(self, holds: Callable[[], bool]) -> None:
        async with asyncio.timeout(15):
            while not holds():
                self._more.clear()
                await self._more.wait()
            await asyncio.sleep(0)

    def lines(self, channel: str) -> list[str]:
        """Every note that was taken, without the headers."""
        return [line for text in self.texts[channel] for line in text.split("\n")[1:]]


@pytest.fixture
async def outside() -> AsyncIterator[Outside]:
    made = Outside()
    async with listening(made.app) as made.address:
        yield made


@pytest.fixture
def bus() -> MemoryServer:
    return MemoryServer()


def settings(outside: Outside, *channels: str, **given: Any) -> NotifierSettings:
    telegram = {"telegram_bot_token": TOKEN, "telegram_chat_id": "42", "telegram_url": outside.address}
    slack = {"slack_webhook_url": f"{outside.address}/services/T/B/X"}
    paces = {"telegram_per_minute": 60_000, "slack_per_minute": 60_000, "timeout_s": 1.0}
    keys = (telegram if "telegram" in channels else {}) | (slack if "slack" in channels else {})
    return NotifierSettings.load(**{**paces, **keys, **given})


@asynccontextmanager
async def notifier(
    bus: MemoryServer, wishes: NotifierSettings, path: Path | None = None, *, killed: bool = False
) -> AsyncIterator[Host[NotifierSettings]]:
    """A notifier that runs; `killed` ends it as a kill does, with nothing said or finished."""
    store = await Store.open(path, SERVICE.tables)
    host = Host("notifier", wishes, MemoryBus(bus), store, VenueClock())
    await host.start(SERVICE.serve)
    yield host
    if killed:
        for task in host._tasks:
            task.cancel()
        await asyncio.gather(*host._tasks, return_exceptions=True)
        for close in host.closers:  # a kill closes sockets, too
            await close()
        await host.bus.close()
        await host.store.close()
    else:
        await host.stop()


async def tell(bus: MemoryServer, *messages: Message) -> None:
    teller = Teller(MemoryBus(bus))
    for message in messages:
        await teller.tell(message, "engine")


def alerts(count: int) -> list[Alert]:
    return [
        Alert(service="engine", name=f"n{n}", level="warning", text=f"text {n}", at=AT + timedelta(minutes=n))
        for n in range(count)
    ]


def notified(bus: MemoryServer) -> list[Notified]:
    return [
        open_envelope(unpack(message.payload), Notified)
        for message in bus.streams["OPS"]
        if message.subject.startswith("notify.")
    ]


@pytest.mark.parametrize("channel", ["telegram", "slack"])
async def test_a_closed_trade_is_told_once_and_its_delivery_is_said(
    bus: MemoryServer, outside: Outside, channel: str
) -> None:
    async with notifier(bus, settings(outside, channel)):
        await tell(bus, trade())
        await tell(bus, trade())  # the same message again
        await outside.until(lambda: len(outside.texts[channel]) == 1)

    assert len(outside.lines(channel)) == 1
    assert "+12.30" in outside.lines(channel)[0]
    assert [(one.channel, one.delivered, one.notification_id) for one in notified(bus)] == [
        (channel, True, message_id(trade()))
    ]


@pytest.mark.parametrize("channel", ["telegram", "slack"])
async def test_who_is_told_to_wait_waits_and_then_tells_it_once(
    bus: MemoryServer, outside: Outside, channel: str
) -> None:
    limited = PlainTextResponse("rate_limited", status_code=429, headers={"Retry-After": "1"})
    outside.answers.append(flood(1) if channel == "telegram" else lambda: limited)

    async with notifier(bus, settings(outside, channel)):
        await tell(bus, trade())
        await outside.until(lambda: len(outside.texts[channel]) == 1)

    assert outside.asked_at[1] - outside.asked_at[0] >= 1.0
    assert len(outside.lines(channel)) == 1


@pytest.mark.parametrize("channel", ["telegram", "slack"])
async def test_a_server_in_trouble_is_asked_again_until_it_takes_the_message(
    bus: MemoryServer, outside: Outside, channel: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sending, "BACKOFF_S", (0.05,))
    outside.answers.extend([failing(502), failing(500), failing(503)])

    async with notifier(bus, settings(outside, channel)):
        await tell(bus, trade())
        await outside.until(lambda: len(outside.texts[channel]) == 1)

    assert len(outside.asked_at) == 4
    assert len(outside.lines(channel)) == 1


async def test_notes_that_wait_are_merged_but_a_critical_one_goes_first_and_alone(
    bus: MemoryServer, outside: Outside
) -> None:
    outside.answers.append(flood(1))  # the first has to wait; meanwhile the others come

    async with notifier(bus, settings(outside, "telegram")) as host:
        await tell(bus, *alerts(1))
        await outside.until(lambda: len(outside.asked_at) == 1)
        await tell(bus, *alerts(30)[1:], breaker("halted"), alert("critical"))
        await outside.until(lambda: len(outside.lines("telegram")) == 32)
        assert host.listener.counters["handled"] >= 32

    first, second, *others = outside.texts["telegram"]
    assert {first.count("\n"), second.count("\n")} == {1}
    assert "HALTED" in first + second
    assert "stream_lost" in first + second
    assert len(others) == 1
    assert [line.rsplit(" ", 1)[1] for line in outside.lines("telegram")[2:]] == [str(n) for n in range(30)]


async def test_nothing_is_lost_and_nothing_told_twice_by_kills_and_restarts(
    bus: MemoryServer, outside: Outside, tmp_path: Path
) -> None:
    wishes = settings(outside, "telegram", "slack")
    everything = alerts(40)
    path = tmp_path / "notifier.sqlite"

    for start in range(0, 40, 10):
        async with notifier(bus, wishes, path, killed=True) as host:
            await tell(bus, *everything[start : start + 10])
            await outside.until(
                lambda: min(len(outside.lines("telegram")), len(outside.lines("slack"))) >= 1 + start  # noqa: B023
            )
            await answered(host)
    async with notifier(bus, wishes, path):
        await outside.until(lambda: min(len(outside.lines("telegram")), len(outside.lines("slack"))) >= 40)

    for channel in ("telegram", "slack"):
        assert [line.rsplit(" ", 1)[1] for line in outside.lines(channel)] == [str(n) for n in range(40)]


async def answered(host: Host[NotifierSettings]) -> None:
    """Until no message is on its way: a kill in that instant is the next test's."""

    async def is_idle() -> bool:
        return await host.store.row("select 1 from notes where state = 'sending'") is None

    await eventually(is_idle)


async def test_a_message_that_nobody_answered_is_told_again_and_says_so(
    bus: MemoryServer, outside: Outside, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sending, "BACKOFF_S", (0.05,))
    outside.silent_for = 1

    async with notifier(bus, settings(outside, "telegram")):
        await tell(bus, trade())
        await outside.until(lambda: len(outside.texts["telegram"]) == 2)

    assert "nobody answered" not in outside.texts["telegram"][0]
    assert "nobody answered" in outside.texts["telegram"][1]


async def test_with_a_wrong_token_it_is_not_ready_and_loses_nothing(
    bus: MemoryServer, outside: Outside, tmp_path: Path
) -> None:
    path = tmp_path / "notifier.sqlite"
    async with notifier(bus, settings(outside, "telegram", telegram_bot_token="1:wrong"), path) as host:
        await tell(bus, trade())

        async def is_closed() -> bool:
            return "telegram" in host.waiting_for()

        await eventually(is_closed)
        details = await host.store.rows("select detail from notes")
    assert "1:wrong" not in str(details)
    assert outside.texts["telegram"] == []

    async with notifier(bus, settings(outside, "telegram"), path) as host:
        await outside.until(lambda: len(outside.texts["telegram"]) == 1)
        assert host.waiting_for() == []


async def test_without_any_key_it_is_ready_and_queues_nothing(bus: MemoryServer, outside: Outside) -> None:
    async with notifier(bus, settings(outside)) as host:
        await tell(bus, *alerts(3))
        await heard(host, 3)
        assert host.waiting_for() == []
        assert await host.store.rows("select * from notes") == []


async def heard(host: Host[NotifierSettings], count: int) -> None:
    """Until so many messages were handled."""

    async def is_handled() -> bool:
        return host.listener.counters["handled"] >= count

    await eventually(is_handled)


async def eventually(holds: Callable[[], Awaitable[bool]]) -> None:
    """For what only a table or a counter tells."""
    async with asyncio.timeout(5):
        while not await holds():  # noqa: ASYNC110
            await asyncio.sleep(0.01)


async def test_a_day_is_summed_up_once_it_is_over_by_venue_time(bus: MemoryServer, outside: Outside) -> None:
    midnight = datetime(2026, 3, 3, tzinfo=UTC)

    async def reached(at: datetime) -> None:
        health = Health(
            service="engine",
            ready=True,
            waiting_for=(),
            version="",
            restarts=0,
            at={"BTC-USDT.1m": to_ms(at)},
            said_at=at,
        )
        await tell(bus, health)

    async with notifier(bus, settings(outside, "telegram", trades=False)) as host:
        await tell(bus, trade())  # at noon
        await heard(host, 1)
        await reached(midnight + timedelta(minutes=1))  # its last trade may still be under way
        await reached(midnight + timedelta(minutes=11))
        await outside.until(lambda: len(outside.texts["telegram"]) == 1)
        await reached(midnight + timedelta(minutes=12))

    assert outside.lines("telegram") == ["Day 2026-03-02: +12.30 net in 1 trades, 1 won, fees 1.20"]


async def test_a_whole_story_is_told_without_a_message_that_cannot_be_put_into_words(
    bus: MemoryServer, outside: Outside
) -> None:
    story = Story(MemoryBus(bus))
    await story.begin()
    await story.bars(200)

    async with notifier(bus, settings(outside, "slack", signals=True)) as host:
        wanted = sum(message.subject.split(".")[1] == "closed" for message in bus.streams["EXEC"])
        assert wanted > 3
        await outside.until(lambda: sum("left by" in line for line in outside.lines("slack")) == wanted)
        assert host.listener.counters["parked"] == 0


def test_it_hears_what_the_table_of_subjects_says() -> None:
    assert said.TRADE_CLOSED in HEARD
    assert said.ALERT in HEARD
    assert said.BAR_CLOSED not in HEARD
