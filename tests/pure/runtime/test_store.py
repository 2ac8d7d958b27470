"""What is written, and what of it waits for the disk."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import pytest

from shared.runtime.store import Statement, Store

ROW = Statement("insert into rows values (?)", (1,))


@pytest.mark.parametrize(
    ("synchronous", "must_last", "waits"),
    [("FULL", True, True), ("FULL", False, False), ("NORMAL", True, False), ("NORMAL", False, False)],
)
async def test_only_what_must_last_waits_for_the_disk_and_only_where_money_is_kept(
    tmp_path: Path, synchronous: Literal["FULL", "NORMAL"], must_last: bool, waits: bool
) -> None:
    store = await Store.open(tmp_path / "a.sqlite", ("create table rows (n integer)",), synchronous)
    for before in (not must_last, must_last):
        await store.commit([ROW], must_last=before)

    assert store.waited_for_disk is waits
    assert await store.rows("select count(*) from rows") == [(2,)]
    await store.close()
