"""What the page says of an instrument's regime, and when it says that it does not know."""

from __future__ import annotations

import math
from datetime import timedelta

from services.ops_api.now import Now
from services.ops_api.settings import OpsSettings
from services.ops_api.status import InstrumentStatus, Watch
from shared.bus.memory import MemoryBus
from shared.contracts.governance import ModelPromoted
from shared.contracts.operations import Health
from shared.contracts.times import to_ms
from shared.contracts.wire import pack, wrap
from shared.runtime.clock import VenueClock
from tests.browser.story import BEGIN, MINUTE, Story, a_basket


class House:
    """One instrument, with a model that reads it or without."""

    def __init__(self, *, has_model: bool = True) -> None:
        self.now = Now("main", "1m")
        self.watch = Watch(self.now, OpsSettings.load(), VenueClock())
        self.one = Story(MemoryBus()).instruments[0]
        if has_model:
            self.one.model_id = "a" * 64
            self.now.remember(
                ModelPromoted(
                    model_id=self.one.model_id,
                    venue="sim",
                    symbol="BTC-USDT",
                    timeframe="1m",
                    manifest=b"{}",
                    evidence_id="",
                    promoted_at=BEGIN,
                )
            )

    def bars(self, count: int, *, read: bool) -> None:
        """So many more bars, read or not."""
        last = self.now.bars.get("BTC-USDT.1m")
        for k in range(count):
            bar = self.one.bar((last.opened_at + MINUTE if last else BEGIN) + k * MINUTE)
            self.now.remember(bar)
            if read:
                self.now.remember(self.one.reading(bar))

    def ml_service_reached(self, minute: int) -> None:
        """What ml_service says of itself."""
        at = BEGIN + timedelta(minutes=minute)
        health = Health(
            service="ml_service",
            ready=True,
            waiting_for=(),
            version="0.1.0",
            restarts=0,
            at={"BTC-USDT.1m": to_ms(at)},
            holding="",
            said_at=at,
        )
        self.watch.on_health("health.ml_service", pack(wrap(health, "ml_service")))

    @property
    def told(self) -> InstrumentStatus:
        return self.watch.status().instruments[0]


def test_the_last_reading_is_the_regime() -> None:
    house = House()

    house.bars(5, read=True)

    assert (house.told.regime, house.told.probability, house.told.note) == (house.one.regime, 0.84, "")


def test_without_a_model_the_regime_is_unknown() -> None:
    house = House(has_model=False)

    house.bars(5, read=True)

    assert house.told.regime == "UNKNOWN"
    assert math.isnan(house.told.probability)
    assert house.told.note.startswith("No model yet")


def test_a_reading_of_an_older_market_is_no_reading() -> None:
    house = House()
    house.bars(5, read=True)

    house.bars(3, read=False)  # on its way
    assert house.told.regime == house.now.readings["BTC-USDT.1m"].regime
    house.bars(1, read=False)

    assert house.told.regime == "UNKNOWN"
    assert math.isnan(house.told.probability)
    assert house.told.note.startswith("The last 4 bars were not read")


def test_a_reading_that_is_only_late_in_reaching_us_still_counts() -> None:
    house = House()
    house.bars(5, read=True)
    house.bars(50, read=False)

    house.ml_service_reached(minute=53)

    assert house.told.regime != "UNKNOWN"
    assert house.told.note == ""


def test_the_basket_is_told_by_its_last_reading() -> None:
    house = House()
    assert house.watch.status().markets == []

    for minute in (1, 2):
        house.now.remember(a_basket(minute))

    assert house.watch.status().markets == [a_basket(2)]
