"""The regime of a basket: read as an instrument's is, from an index of its members, and gone on with after a restart."""

from __future__ import annotations

import pytest

from services.ml_service.baskets import index_of
from shared.contracts.market import BarClosed, GapFound
from shared.contracts.subjects import MARKET_REGIME, REGIME_READING
from shared.contracts.times import to_ms
from shared.regimes.features import Candle
from shared.regimes.reader import RegimeReader

from .conftest import A_MODEL, MINUTE, START, House, market

BASKET = ["BTC-USDT", "ETH-USDT"]
MEMBERS = {symbol: market(140, symbol=symbol, seed=seed) for seed, symbol in enumerate(BASKET)}
QUIET = {"basket": BASKET, "synthetic_bootstrap": False, "min_train_bars": 2_000, "train_bars": 3_000}


def together(first: int, last: int) -> list[BarClosed]:
    """The members' bars in the order in which they close."""
    return [bars[at] for at in range(first, last) for bars in MEMBERS.values()]


def read_alone() -> list[str]:
    """The hashes that a reader of the whole index comes to."""
    bars = {
        symbol: [(to_ms(bar.opened_at), Candle(bar.open, bar.high, bar.low, bar.close, bar.volume)) for bar in of]
        for symbol, of in MEMBERS.items()
    }
    reader = RegimeReader(60_000)
    reader.use(A_MODEL, "m", to_ms(START))
    return [reader.on_bar(ms, bar).reading_hash for ms, bar in index_of(bars)]


async def test_a_market_is_read_from_its_members_and_a_restart_changes_no_bit(house: House) -> None:
    await house.up(**QUIET)
    await house.promote_a_known_model(START, "MARKET")
    await house.tell(*together(0, 110), *together(110, 111)[:1])
    await house.until_said(MARKET_REGIME, 109)
    await house.down()
    await house.up(**QUIET)
    await house.tell(*together(110, 111)[1:], *together(111, 140))
    said = await house.until_said(MARKET_REGIME, 139)
    assert [one.opened_at for one in said] == [START + at * MINUTE for at in range(1, 140)], "the first has no return"
    assert [one.reading_hash for one in said] == read_alone()
    assert {one.members for one in said} == {tuple(BASKET)}
    assert said[-1].regime != "UNKNOWN" and said[0].regime == "UNKNOWN"
    assert {one.symbol for one in house.said(REGIME_READING)} == set(BASKET), "the index is no instrument to be traded"


async def test_who_has_no_bar_is_not_waited_for(house: House) -> None:
    await house.up(**QUIET)
    await house.tell(*together(0, 3), MEMBERS["BTC-USDT"][3])
    await house.until_said(MARKET_REGIME, 2)
    gap = GapFound(
        venue="sim",
        symbol="ETH-USDT",
        timeframe="1m",
        first_opened_at=START + 3 * MINUTE,
        last_opened_at=START + 3 * MINUTE,
        bars=1,
        reason="absent",
    )
    await house.tell(gap)
    assert (await house.until_said(MARKET_REGIME, 3))[-1].opened_at == START + 3 * MINUTE


async def test_an_instruments_odds_with_the_markets_known_are_told_over_http(house: House) -> None:
    await house.up(**QUIET)
    for number, symbol in enumerate((*BASKET, "MARKET")):
        await house.promote_a_known_model(START - number * MINUTE, symbol)  # one model is promoted once at one instant
    await house.tell(*together(0, 140))
    await house.until_said(MARKET_REGIME, 139)
    async with house.client() as client:
        told = (await client.get("/regime/BTC-USDT/coupling")).json()
        index = (await client.get("/regime/MARKET")).json()
        alone = await client.get("/regime/MARKET/coupling")
    assert told["members"] == BASKET and told["bars"] == pytest.approx(140 - 97)
    assert abs(sum(map(sum, told["joint"])) - 1.0) < 1e-9 and told["shared_bits"] >= 0.0
    assert abs(sum(told["coupled_probs"]) - 1.0) < 1e-9
    assert told["market_probs"] == [index["probs"][name] for name in ("BULL", "BEAR", "CHOP")]
    assert alone.status_code == 409
