"""Our books against the venue's account: at the start, and every so often. The venue is right about quantity."""

from __future__ import annotations

import asyncio
from decimal import Decimal

import msgspec

from services.engine.breakers import on_trouble
from services.engine.executor import Executor
from shared.contracts.errors import TryAgain
from shared.runtime.listening import Effects
from shared.runtime.store import keep_fact

STRIKES = 2  # comparisons in a row that must fail: one alone may have met an order on its way


class Reconciliation:
    """Compares what all sleeves hold of an asset with what the account gained of it since we began."""

    def __init__(self, executor: Executor) -> None:
        self._executor = executor
        self._baseline: dict[str, Decimal] = {}
        self._strikes = 0

    async def begin(self) -> None:
        """Remember what the account held before our first order; later starts compare with that."""
        host, venue = self._executor.host, self._executor.venue
        kept = await host.store.fact("baseline")
        if kept is not None:
            self._baseline = msgspec.json.decode(kept, type=dict[str, Decimal])
            return
        balances = await self._executor.asked(venue.balances)
        if balances is None:
            return
        self._baseline = {asset: balances.get(asset, Decimal(0)) for asset in self._executor.desk.holdings()}
        await host.store.commit([keep_fact("baseline", msgspec.json.encode(self._baseline))])

    async def for_ever(self, every_s: float) -> None:
        """Ask for open orders and compare the account, again and again."""
        while True:
            await asyncio.sleep(every_s)
            await self._executor.ask_for_open_orders()
            await self.compare()

    async def compare(self) -> dict[str, str]:
        """The differences by asset, in words; when they stay, entries wait for a person."""
        if not self._baseline:
            return {}
        found: dict[str, str] = {}

        async def look(effects: Effects) -> None:
            try:
                balances = await self._executor.venue.balances()
            except TryAgain as error:
                self._executor.host.log.warning("reconciliation.later", error=str(error))
                return
            if balances is None or self._executor.open:
                return
            found.update(self._differences(balances))
            self._strikes = self._strikes + 1 if found else 0
            if self._strikes == STRIKES:
                self._stop_entries(found, effects)

        await self._executor.host.act(look)
        return found

    def _differences(self, balances: dict[str, Decimal]) -> dict[str, str]:
        """Assets of which the venue has another quantity than our books, by a lot or more."""
        desk = self._executor.desk
        lots = {sleeve.trader.instrument.base: sleeve.trader.instrument.lot for sleeve in desk.sleeves.values()}
        found: dict[str, str] = {}
        for asset, ours in desk.holdings().items():
            theirs = balances.get(asset, Decimal(0)) - self._baseline.get(asset, Decimal(0))
            if abs(theirs - ours) >= lots[asset]:
                found[asset] = f"{self._executor.venue.name} has {theirs.normalize():f}, our books {ours.normalize():f}"
        return found

    def _stop_entries(self, found: dict[str, str], effects: Effects) -> None:
        executor = self._executor
        text = "; ".join(f"{asset}: {words}" for asset, words in sorted(found.items()))
        at = executor.host.clock.now()
        executor.host.alert_in(effects, "ledger-mismatch", "critical", f"{text}. No entries until a person resumes.")
        account = executor.host.settings.account
        executor.desk.standing, trips = on_trouble(executor.desk.standing, account, "ledger_mismatch", text, at)
        executor.keeper.trip(effects, trips)
