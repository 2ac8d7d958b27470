"""Presets: immutable, spelled in one way, named by their content."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.artifacts.presets import Preset, preset_bytes, preset_from_bytes, preset_id
from shared.contracts.errors import BadMessage

numbers = st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False, allow_infinity=False)
params = st.dictionaries(st.from_regex(r"[a-z_][a-z0-9_]{0,15}", fullmatch=True), numbers, max_size=8)


def preset(**changes: object) -> Preset:
    fields = {
        "strategy": "trend_follow",
        "source_hash": "5eed",
        "schema_version": 1,
        "params": {"fast": 20, "slow": 100, "stop": 2.5},
        "symbol": "BTC-USDT",
        "timeframe": "1h",
        "origin": "backtest",
    }
    return Preset(**{**fields, **changes})


@given(params)
def test_reading_undoes_writing_and_keeps_every_type(values: dict[str, bool | int | float]) -> None:
    one = preset(params=values)
    back = preset_from_bytes(preset_bytes(one), preset_id(one))
    assert back == one and preset_bytes(back) == preset_bytes(one)
    assert [type(value) for value in back.params.values()] == [type(values[name]) for name in back.params]


def test_the_order_in_which_parameters_were_written_changes_no_id() -> None:
    assert preset_id(preset(params={"fast": 20, "slow": 100})) == preset_id(preset(params={"slow": 100, "fast": 20}))


@pytest.mark.parametrize(
    "changes",
    [
        {"strategy": "momentum"},
        {"source_hash": "c0de"},
        {"params": {"fast": 21, "slow": 100, "stop": 2.5}},
        {"params": {"fast": 20.0, "slow": 100, "stop": 2.5}},
        {"symbol": "ETH-USDT"},
        {"timeframe": "1m"},
        {"origin": "manual"},
    ],
)
def test_whatever_differs_has_another_id(changes: dict[str, object]) -> None:
    assert preset_id(preset(**changes)) != preset_id(preset())


@pytest.mark.parametrize(
    "spoiled",
    [
        b"",
        b"{}",
        preset_bytes(preset()) + b" ",
        preset_bytes(preset()).replace(b'"symbol"', b'"Symbol"'),
        preset_bytes(preset()).replace(b'"BTC-USDT"', b'"BTC/USDT"'),
        preset_bytes(preset()).replace(b'"1h"', b'"7h"'),
        preset_bytes(preset()).replace(b"100", b"1e400"),
        preset_bytes(preset()).replace(b"100", b"9007199254740993"),
        preset_bytes(preset()).replace(b"2.5", b"2.50"),
        preset_bytes(preset()).replace(b"trend_follow", b"../../etc"),
        msgspec.json.encode({**msgspec.to_builtins(preset()), "code": "x"}, order="sorted"),
    ],
)
def test_what_is_no_preset_in_its_one_spelling_is_refused(spoiled: bytes) -> None:
    with pytest.raises(BadMessage, match="Preset"):
        preset_from_bytes(spoiled)


def test_a_preset_under_another_name_is_refused() -> None:
    with pytest.raises(BadMessage, match="Expected the preset"):
        preset_from_bytes(preset_bytes(preset()), preset_id(preset(symbol="ETH-USDT")))
