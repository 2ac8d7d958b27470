"""The record's chain of hashes shows every change, loss, addition and move of a line."""

from __future__ import annotations

from collections.abc import Callable

import msgspec
import pytest

from services.governor.record import BEGINNING, Head, chained, verify, version_before
from shared.contracts.governance import Stage, StageChanged
from shared.contracts.times import parse_time

Lines = list[StageChanged]


def record(length: int) -> Lines:
    made: Lines = []
    head = Head()
    for n in range(length):
        line = chained(
            head,
            StageChanged(
                sequence=1,
                kind="preset",
                subject_id=f"p{n}",
                venue="sim",
                strategy="momentum",
                symbol="BTC-USDT",
                timeframe="1m",
                before="candidate",
                after="champion" if n % 2 else "refused",
                reasons=(f"sharpe at least 1, was {n}",),
                profile="demo/2",
                evidence_id=f"e{n}",
                actor="gate",
                changed_at=parse_time("2024-01-01"),
                previous_hash="",
                hash="",
            ),
        )
        made.append(line)
        head = Head(line.sequence, line.hash)
    return made


def test_a_whole_record_is_whole() -> None:
    lines = record(5)

    assert verify(lines) == (Head(5, lines[-1].hash), None)
    assert lines[0].previous_hash == BEGINNING
    assert verify([]) == (Head(), None)


def test_a_record_read_back_from_json_is_whole() -> None:
    written = [msgspec.json.encode(line) for line in record(3)]

    assert verify(msgspec.json.decode(line, type=StageChanged) for line in written)[1] is None


def another(line: StageChanged, **fields: object) -> StageChanged:
    return msgspec.structs.replace(line, **fields)


def rehashed(line: StageChanged) -> StageChanged:
    """A forger who knows how hashes are made."""
    return chained(Head(line.sequence - 1, line.previous_hash), line)


TAMPERINGS: dict[str, tuple[Callable[[Lines], Lines], int]] = {
    "a reason was changed": (lambda r: [*r[:2], another(r[2], reasons=("all is well",)), *r[3:]], 3),
    "an outcome was changed": (lambda r: [*r[:2], another(r[2], after="champion"), *r[3:]], 3),
    "an actor was changed and the hash made anew": (
        lambda r: [*r[:2], rehashed(another(r[2], actor="nobody")), *r[3:]],
        4,
    ),
    "a line was dropped": (lambda r: [*r[:2], *r[3:]], 3),
    "the first line was dropped": (lambda r: r[1:], 1),
    "two lines changed places": (lambda r: [r[0], r[2], r[1], *r[3:]], 2),
    "a line was said twice": (lambda r: [*r[:3], r[2], *r[3:]], 4),
    "a line of another record was put in": (lambda r: [*r[:4], another(r[4], previous_hash="0" * 64)], 5),
}


@pytest.mark.parametrize("what", TAMPERINGS)
def test_tampering_is_found_at_its_line(what: str) -> None:
    tamper, at = TAMPERINGS[what]

    _, fault = verify(tamper(record(5)))

    assert fault is not None and fault.sequence == at, what


def reign(model: str, after: Stage = "champion", before: Stage = "demoted", timeframe: str = "1h") -> StageChanged:
    """A line that says only what a rollback asks for."""
    return StageChanged(
        sequence=1,
        kind="model",
        subject_id=model,
        venue="sim",
        strategy="",
        symbol="BTC-USDT",
        timeframe=timeframe,
        before=before,
        after=after,
        reasons=("r",),
        profile="demo/1",
        evidence_id="",
        actor="gate",
        changed_at=parse_time("2024-01-01"),
        previous_hash="",
        hash="f" * 64,
    )


@pytest.mark.parametrize(
    ("lines", "before"),
    [
        ([], None),
        ([reign("a")], None),
        ([reign("a"), reign("b"), reign("a", "demoted", "champion")], "a"),
        ([reign("a"), reign("b"), reign("b", "demoted", "champion")], "a"),  # b drifted, and nobody came after it
        ([reign("a"), reign("b"), reign("c"), reign("b")], "c"),  # after a rollback, the one before is the newer one
        ([reign("a"), reign("b"), reign("a", "demoted", "demoted"), reign("b", "champion", "champion")], "a"),  # again
        ([reign("a"), reign("x", timeframe="1d"), reign("b")], "a"),
    ],
)
def test_the_version_before_is_the_one_that_read_before_the_last(lines: list[StageChanged], before: str | None) -> None:
    assert version_before(lines, ("sim", "BTC-USDT", "1h")) == before
