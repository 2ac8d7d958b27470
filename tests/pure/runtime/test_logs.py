"""What a person reads of a service's log."""

from __future__ import annotations

from shared.runtime.logs import in_words


def test_an_event_is_told_with_its_values_and_without_what_every_line_has() -> None:
    line = '{"trade": "t-1", "event": "trade.closed", "level": "info", "timestamp": "2026-01-01T00:00:00Z"}'
    assert in_words(line) == "trade.closed  trade=t-1"


def test_what_a_person_must_do_stands_alone() -> None:
    line = '{"error": "Port 8002 is taken: stop what listens there.", "event": "needs_operator", "level": "error"}'
    assert in_words(line) == "Port 8002 is taken: stop what listens there."


def test_what_is_no_event_stays_as_it_is() -> None:
    for line in ("Traceback (most recent call last):", "[1, 2]", "17", "{}", ""):
        assert in_words(line) == line
