"""The governor's record: each line carries the hash of the one before, so no line can be changed or lost unseen. Pure."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import NamedTuple

import msgspec

from shared.contracts.governance import StageChanged

BEGINNING = "0" * 64  # what the first line calls the hash before it


class Head(NamedTuple):
    """The end of the record."""

    sequence: int = 0
    hash: str = BEGINNING


class Fault(NamedTuple):
    """Where the record first contradicts itself."""

    sequence: int
    text: str


def line_hash(line: StageChanged) -> str:
    """SHA-256 (hex) over all other fields of the line, as JSON with sorted keys."""
    fields = {name: getattr(line, name) for name in StageChanged.__struct_fields__ if name != "hash"}
    return hashlib.sha256(msgspec.json.encode(fields, order="sorted")).hexdigest()


def chained(head: Head, line: StageChanged) -> StageChanged:
    """The line as the next one of the record."""
    follows = msgspec.structs.replace(line, sequence=head.sequence + 1, previous_hash=head.hash, hash="")
    return msgspec.structs.replace(follows, hash=line_hash(follows))


def version_before(lines: Iterable[StageChanged], place: tuple[str, str, str]) -> str | None:
    """The model that read this (venue, symbol, timeframe) before the one that read it last; None when there is none.

    Whether that last one still reads it does not matter: it may have been demoted without a successor.
    """
    reigns = [
        line.subject_id
        for line in lines
        if line.kind == "model"
        and (line.venue, line.symbol, line.timeframe) == place
        and line.after == "champion" != line.before
    ]
    return next((one for one in reversed(reigns) if one != reigns[-1]), None)


def verify(lines: Iterable[StageChanged]) -> tuple[Head, Fault | None]:
    """The end of a whole record, and its first fault: a line that was changed, dropped, added or moved."""
    head = Head()
    for line in lines:
        if line.sequence != head.sequence + 1:
            return head, Fault(head.sequence + 1, f"Expected line {head.sequence + 1}, found {line.sequence}.")
        if line.previous_hash != head.hash:
            return head, Fault(line.sequence, f"It follows {line.previous_hash[:12]}, not {head.hash[:12]}.")
        if line.hash != line_hash(line):
            return head, Fault(line.sequence, f"Its hash is {line_hash(line)[:12]}, it says {line.hash[:12]}.")
        head = Head(line.sequence, line.hash)
    return head, None
