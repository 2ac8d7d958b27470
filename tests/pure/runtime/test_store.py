"""What is written, and what of it waits for the disk."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Literal

import pytest

from shared.runtime.store import CHECKPOINT_PAGES, LOG_BYTES, Statement, Store

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


async def test_where_money_is_kept_no_commit_makes_the_log_grow(tmp_path: Path) -> None:
    store = await Store.open(tmp_path / "a.sqlite", ("create table rows (n integer)",), "FULL")
    log = tmp_path / "a.sqlite-wal"
    before = log.stat().st_size
    for _ in range(3 * CHECKPOINT_PAGES // 2):  # a page each, so the log begins anew on the way
        await store.commit([ROW], must_last=False)

    assert log.stat().st_size == before == LOG_BYTES
    await store.close()


async def test_a_life_that_ended_by_kill_is_read_back_from_a_log_with_room(tmp_path: Path) -> None:
    store = await Store.open(tmp_path / "a.sqlite", ("create table rows (n integer)",), "FULL")
    await store.commit([ROW, ROW])
    for file in ("a.sqlite", "a.sqlite-wal"):  # as they lie on the disk, while the writer still lives
        shutil.copy(tmp_path / file, tmp_path / file.replace("a", "b", 1))
    await store.close()

    for _ in range(2):  # a start, and one after an orderly stop
        again = await Store.open(tmp_path / "b.sqlite", ("create table rows (n integer)",), "FULL")
        assert await again.rows("select count(*) from rows") == [(2,)]
        await again.close()
