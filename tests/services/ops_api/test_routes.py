"""The doors of ops_api, on real sockets: what they answer, to whom, and how often the stream speaks."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any

import httpx
import pytest

from services.ops_api.settings import OpsSettings
from shared.bus.memory import MemoryBus, MemoryServer
from shared.contracts import subjects as said
from shared.contracts.wire import open_envelope, unpack
from tests.browser.serving import Engine, Served, running_engine, served
from tests.browser.story import Story

TOKEN = {"Authorization": "Bearer t0ken"}


class Page:
    """A running ops_api, its story, and a client."""

    def __init__(self, bus: MemoryServer, page: Served, client: httpx.AsyncClient) -> None:
        self.bus, self.address, self.client = bus, page.address, client
        self.story = Story(MemoryBus(bus))

    async def shows(self, path: str, holds: Callable[[Any], bool]) -> Any:
        """Wait on the stream until what this path answers holds."""
        async with asyncio.timeout(10), self.client.stream("GET", "/stream") as frames:
            async for line in frames.aiter_lines():
                if line.startswith("data: ") and holds(answer := (await self.client.get(path)).json()):
                    return answer
        raise AssertionError("the stream ended")


Open = Callable[..., Awaitable[Page]]


@pytest.fixture
async def open_page() -> AsyncIterator[Open]:
    """Start ops_api with these settings on a free port."""
    async with AsyncExitStack() as stack:

        async def opened(**settings: Any) -> Page:
            bus = MemoryServer()
            page = await stack.enter_async_context(served(bus, **settings))
            # Plain HTTP: there is no certificate to verify, and loading the roots takes longer than most tests.
            client = httpx.AsyncClient(base_url=page.address, timeout=10, verify=False)
            return Page(bus, page, await stack.enter_async_context(client))

        yield opened


@pytest.fixture
async def page(open_page: Open) -> Page:
    made = await open_page()
    await made.story.begin()
    await made.story.bars(120)
    end = made.story.at.isoformat().replace("+00:00", "Z")
    await made.shows("/status", lambda status: status["venue_time"] == end and status["bars_closed"] == 360)
    return made


@pytest.fixture
async def engine(page: Page) -> AsyncIterator[Engine]:
    async with running_engine(page.bus) as made:
        yield made


async def test_the_same_answer_comes_at_the_plain_path_and_under_the_version(page: Page) -> None:
    for path in (
        "/trades/stats",
        "/trades?limit=3",
        "/positions",
        "/equity?points=10",
        "/presets",
        "/governance",
        "/models",
    ):
        plain, versioned = await page.client.get(path), await page.client.get(f"/api/v1{path}")
        assert plain.status_code == 200
        assert plain.content == versioned.content


async def test_status_has_the_counts_of_the_launchers_report_on_top(page: Page) -> None:
    status = (await page.client.get("/status")).json()

    wanted = (
        "models_promoted models_refused presets_promoted presets_refused decisions orders fills trades_closed halts"
    )
    assert {*wanted.split(), "regimes", "gaps"} <= set(status)
    assert status["bars_closed"] == 360
    assert sum(status["regimes"].values()) < 360  # the bars before the first model were read as UNKNOWN


async def test_money_is_text_and_statistics_are_numbers(page: Page) -> None:
    trade = (await page.client.get("/trades?limit=1")).json()["trades"][0]
    stats = (await page.client.get("/trades/stats")).json()

    assert isinstance(trade["pnl"], str)
    assert isinstance(stats["fees"], float)
    assert 0 <= stats["win_rate"] <= 1


async def test_what_is_not_known_yet_is_said_to_be_missing(open_page: Open) -> None:
    page = await open_page()

    for path in (
        "/positions",
        "/regime/BTC-USDT",
        "/regime/BTC-USDT/history",
        "/regime/BTC-USDT/transitions",
        "/models?symbol=BTC-USDT",
        "/bars/BTC-USDT",
        "/explain/nothing",
    ):
        answer = await page.client.get(path)
        assert answer.status_code == 404, path
        assert answer.json()["detail"]
    assert (await page.client.get("/trades/stats")).json()["win_rate"] is None


NONSENSE = (
    "/trades?after=somewhere",
    "/trades?limit=0",
    "/trades?side=sideways",
    "/trades?from=yesterday",
    "/trades?symbol=BTC/USDT",
    "/regime/btcusdt",
    "/equity?points=1",
    "/bars/BTC-USDT?limit=1000000",
    "/regime/BTC-USDT/history?limit=0",
    "/regime/btcusdt/transitions",
    "/models?symbol=btcusdt",
)


async def test_a_question_that_makes_no_sense_is_refused_with_what_was_expected(page: Page) -> None:
    for path in NONSENSE:
        answer = await page.client.get(path)

        assert answer.status_code == 422, path
        assert answer.json()["detail"], path


async def test_regimes_are_counted_from_what_was_read_whether_or_not_the_model_can_be_asked(page: Page) -> None:
    told = (await page.client.get("/regime/BTC-USDT/transitions")).json()

    pairs = sum(map(sum, told["counts"]))
    assert pairs == 120 - 40 - 1  # the model reads from the 41st bar on, and the first follows none of its own
    assert all(abs(sum(row) - 1.0) < 1e-12 for row in told["empirical"] if row)
    assert set(told["dwell"]) == {"BULL", "BEAR", "CHOP"}
    assert told["model"] is None
    assert told["dwell_expected"] == [None, None, None]
    assert "ml_service at http://127.0.0.1" in told["unknown"]  # nobody answers there


async def test_commands_need_the_token(page: Page) -> None:
    assert (await page.client.post("/ops/pause")).status_code == 401
    wrong = await page.client.post("/ops/pause", headers={"Authorization": "Bearer wrong"})
    assert wrong.status_code == 403


async def test_a_command_reaches_the_engine_once_however_often_it_is_sent(page: Page, engine: Engine) -> None:
    headers = {**TOKEN, "Idempotency-Key": "pause-1"}

    answers = [await page.client.post("/ops/pause?reason=lunch", headers=headers) for _ in range(3)]

    assert [answer.status_code for answer in answers] == [200, 200, 200]
    assert answers[0].json() == {"command_id": "pause-1", "verb": "pause", "done": True, "detail": "done"}
    assert [(command.command_id, command.actor, command.reason) for command in engine.commands] == [
        ("pause-1", "token", "lunch")
    ]


async def test_what_the_engine_refuses_is_a_conflict_with_its_reason(page: Page, engine: Engine) -> None:
    answer = await page.client.post("/ops/resume", headers=TOKEN)

    assert answer.status_code == 409
    assert answer.json()["detail"] == "drawdown is still above its limit"


async def test_without_an_answer_the_command_is_accepted_and_can_be_asked_for_again(page: Page) -> None:
    headers = {**TOKEN, "Idempotency-Key": "halt-1"}
    first = await page.client.post("/ops/halt", headers=headers)
    assert first.status_code == 202
    assert first.json()["done"] is None

    async with running_engine(page.bus) as engine:
        await page.shows("/explain/CommandAnswered:halt-1", lambda answer: "summary" in answer)
        second = await page.client.post("/ops/halt", headers=headers)

    assert second.status_code == 200
    assert len(engine.commands) == 1


async def test_one_key_is_one_command(page: Page, engine: Engine) -> None:
    headers = {**TOKEN, "Idempotency-Key": "key-1"}
    await page.client.post("/ops/pause", headers=headers)

    answer = await page.client.post("/ops/halt", headers=headers)

    assert answer.status_code == 422
    assert "'pause'" in answer.json()["detail"]
    assert (await page.client.post("/ops/explode", headers=TOKEN)).status_code == 422


async def test_who_commanded_what_is_audited(page: Page, engine: Engine) -> None:
    await page.client.post("/ops/flatten", headers={**TOKEN, "Idempotency-Key": "f-1"})

    audited = [
        open_envelope(unpack(message.payload), said.AUDITED.message)
        for message in page.bus.streams["OPS"]
        if message.subject == "audit.ops_api"
    ]
    assert [(one.actor, one.action) for one in audited] == [("token", "ops.flatten")]


async def test_the_login_link_opens_one_session_that_may_command(page: Page, engine: Engine) -> None:
    login = await page.client.get("/?login=once")
    assert login.status_code == 303
    cookie = login.headers["set-cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=strict" in cookie

    assert (await page.client.get("/session")).json() == {"may_command": True}
    assert (await page.client.post("/ops/pause")).status_code == 200
    assert engine.commands[0].actor == "page"
    abroad = await page.client.post("/ops/pause", headers={"Origin": "http://elsewhere.example"})
    assert abroad.status_code == 403

    async with httpx.AsyncClient(base_url=page.address, verify=False) as stranger:
        assert (await stranger.get("/?login=once")).status_code == 403
        assert (await stranger.get("/?login=guess")).status_code == 403
        assert (await stranger.get("/session")).json() == {"may_command": False}


async def test_dry_run_changes_nothing_even_for_those_who_may(open_page: Open) -> None:
    page = await open_page(dry_run=True)
    await page.client.get("/?login=once")

    assert (await page.client.post("/ops/pause")).status_code == 403
    assert (await page.client.post("/ops/pause", headers=TOKEN)).status_code == 403
    assert (await page.client.get("/session")).json() == {"may_command": False}


async def test_reading_needs_a_token_where_reads_are_not_open(open_page: Open) -> None:
    page = await open_page(open_reads=False)

    paths = (
        "/status /trades /trades/stats /equity /presets /governance /models /regime/BTC-USDT/history /stream /session"
    )
    for path in paths.split():
        assert (await page.client.get(path)).status_code == 401, path
        assert (await page.client.get(f"/api/v1{path}")).status_code == 401, path
    assert (await page.client.get("/trades", headers=TOKEN)).status_code == 200
    assert (await page.client.get("/health")).status_code == 200


def test_beyond_loopback_reads_are_closed_unless_someone_opens_them() -> None:
    assert OpsSettings.load().reads_are_open
    assert not OpsSettings.load(host="0.0.0.0").reads_are_open
    assert OpsSettings.load(host="0.0.0.0", open_reads=True).reads_are_open


async def test_a_name_that_is_not_ours_is_refused(page: Page) -> None:
    answer = await page.client.get("/status", headers={"Host": "evil.example:8002"})

    assert answer.status_code == 421
    assert (await page.client.get("/status", headers={"Host": "localhost:8002"})).status_code == 200


async def test_the_page_is_ours_alone_and_forbids_inline_script(page: Page) -> None:
    shell = await page.client.get("/")

    assert shell.headers["content-security-policy"].startswith("default-src 'self'")
    assert "<script>" not in shell.text
    assert " style=" not in shell.text
    for part in ("page.js", "page.css", "vendor/lightweight-charts.js", "vendor/lightweight-charts.LICENSE"):
        assert (await page.client.get(f"/static/{part}")).status_code == 200
    for elsewhere in ("../settings.py", "..%2fsettings.py", "/etc/passwd", "vendor/../../service.py"):
        assert (await page.client.get(f"/static/{elsewhere}")).status_code == 404, elsewhere


async def test_the_stream_speaks_at_most_five_times_a_second_in_a_storm(page: Page) -> None:
    frames: list[dict[str, Any]] = []
    looked = asyncio.Event()

    async def look() -> None:
        async with page.client.stream("GET", "/stream") as stream:
            async for line in stream.aiter_lines():
                if line.startswith("data: "):
                    frames.append(json.loads(line.removeprefix("data: ")))
                    looked.set()
                if frames and frames[-1]["status"]["bars_closed"] == 3_360:
                    return

    looking = asyncio.create_task(look())
    await looked.wait()
    began = asyncio.get_running_loop().time()
    await page.story.bars(1000)  # 3,000 bars and all that they cause, as fast as they go
    async with asyncio.timeout(20):
        await looking
    took_s = asyncio.get_running_loop().time() - began

    assert len(frames) <= 5 * took_s + 2
    assert frames[-1]["versions"]["trades"] > frames[0]["versions"]["trades"]
