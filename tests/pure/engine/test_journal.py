"""The journal is a chain: what was changed, dropped or put in shows."""

from __future__ import annotations

import pytest

from services.engine.journal import TABLES, Journal, first_broken, rows_after, shown, verified
from shared.contracts.wire import wrap
from shared.runtime.store import Statement, Store
from tests.pure.engine.house import bars


async def written() -> Store:
    """A journal of five bars."""
    store = await Store.open(None, TABLES)
    journal = await Journal.recover(store)
    await store.commit([journal.row("heard", wrap(bar, "ingester")) for bar in bars(1, 2, 3, 4, 5)])
    return store


async def test_a_journal_that_nobody_touched_is_sound() -> None:
    store = await written()

    assert await verified(store) is None
    await store.close()


async def test_it_goes_on_after_a_restart_in_the_same_chain() -> None:
    store = await written()

    again = await Journal.recover(store)
    await store.commit([again.row("said", wrap(bars(6, first=9)[0], "engine"))])

    assert await verified(store) is None
    assert [row.seq for row in await rows_after(store, 4, 10)] == [5, 6]
    await store.close()


@pytest.mark.parametrize(
    ("tamper", "found"),
    [
        (lambda rows: rows[2]._replace(payload=rows[2].payload + b"x"), 3),
        (lambda rows: rows[2]._replace(message_id="BarClosed:other"), 3),
        (lambda rows: rows[2]._replace(direction="said"), 3),
        (lambda rows: rows[3]._replace(seq=3), 3),  # as if a row had been dropped: the next one in its place
    ],
)
async def test_a_row_that_was_changed_breaks_the_chain_there(tamper: object, found: int) -> None:
    store = await written()
    rows = await rows_after(store, 0, 10)
    await store.close()

    rows[2] = tamper(rows)  # type: ignore[operator]

    assert first_broken(rows) == found


async def test_a_changed_row_in_the_database_is_found_page_by_page() -> None:
    store = await written()
    payload = (await rows_after(store, 0, 1))[0].payload
    await store.commit([Statement("update journal set payload = ? where seq = 4", (payload,))])

    assert await verified(store, page=2) == 4
    await store.close()


async def test_people_read_the_message_whole() -> None:
    store = await written()
    (row,) = await rows_after(store, 0, 1)

    one = shown(row)

    assert (one["seq"], one["direction"], one["type"]) == (1, "heard", "BarClosed")
    assert one["body"]["close"] == 1.0 and one["body"]["symbol"] == "BTC-USDT"
    await store.close()
