"""`trimtab up`: what it was told is judged before anything starts, and the text says what is right."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from services.stack import Plan
from shared.contracts.errors import BadMessage, NeedsOperator


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ({"speed": "fast"}, "bars a second above 0, or max, was 'fast'"),
        ({"market": (Path("gone.csv"),)}, "there is none at gone.csv"),
        ({"venue": "binance", "until_end": True}, "leave --until-end away"),
        ({"start": "yesterday"}, "2022-01-31"),
        ({"timeframe": "7m"}, "was '7m'"),
        ({"symbols": "BTC-USDT, ETHUSDT"}, "must look like BTC-USDT.* was 'ETHUSDT'"),
        ({"strategies": "momentun"}, "Did you mean 'momentum'"),
        ({"strategies": "momentum,pairs"}, "pairs: it trades a portfolio"),
    ],
)
def test_a_flag_that_cannot_be_right_is_refused_with_what_is(flags: dict[str, Any], said: str) -> None:
    with pytest.raises((NeedsOperator, BadMessage), match=said):
        Plan(**flags).check()


def test_what_is_left_out_is_right() -> None:
    Plan().check()
    Plan(symbols="BTC-USDT, ETH-USDT", strategies="momentum , trend_follow", timeframe="1h", speed="max").check()
