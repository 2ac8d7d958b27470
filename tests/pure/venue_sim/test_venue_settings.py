"""What the venue may be told, from variables as from flags; and what is refused, with what was expected."""

from pathlib import Path

import pytest

from services.venue_sim.service import tape_for
from services.venue_sim.settings import VenueSettings
from shared.contracts.errors import NeedsOperator


def test_without_a_word_it_is_the_simulated_market_of_three() -> None:
    settings = VenueSettings.load()
    tape = tape_for(settings)
    assert [each.symbol for each in tape.instruments] == ["BTC-USDT", "ETH-USDT", "SOL-USDT"]
    assert (settings.seed, settings.speed, tape.timeframe) == (7, 1.0, "1m")
    assert len(tape.between("BTC-USDT", 0, None, 10_000)) == 5000  # history


@pytest.mark.parametrize(("said", "speed"), [("max", "max"), ("5", 5.0), ("0.5", 0.5)])
def test_a_speed_is_bars_a_second_or_max(monkeypatch: pytest.MonkeyPatch, said: str, speed: float | str) -> None:
    monkeypatch.setenv("TRIMTAB_VENUE_SIM_SPEED", said)
    assert VenueSettings.load().speed == speed


@pytest.mark.parametrize("said", ["0", "-1", "fast", "nan"])
def test_another_speed_is_refused(monkeypatch: pytest.MonkeyPatch, said: str) -> None:
    monkeypatch.setenv("TRIMTAB_VENUE_SIM_SPEED", said)
    with pytest.raises(NeedsOperator, match="speed"):
        VenueSettings.load()


def write(folder: Path, name: str) -> str:
    path = folder / name
    path.write_text("timestamp,open,high,low,close,volume\n1640995200000,1,2,0.5,1.5,3\n1640998800000,1,2,0.5,1.5,3\n")
    return str(path)


def test_files_must_be_different_instruments_of_one_timeframe(tmp_path: Path) -> None:
    hour, day, again = (write(tmp_path, name) for name in ("BTCUSDT_1h.csv", "ETHUSDT_30m.csv", "BTC-USDT.csv"))
    with pytest.raises(NeedsOperator, match="must have one timeframe, these have 1h, 30m"):
        tape_for(VenueSettings.load(market=(hour, day)))
    with pytest.raises(NeedsOperator, match="must be another symbol, these are BTC-USDT, BTC-USDT"):
        tape_for(VenueSettings.load(market=(hour, again)))
    with pytest.raises(NeedsOperator, match="names 2 symbols for 1 files"):
        tape_for(VenueSettings.load(market=(hour,), market_symbols="BTC-USDT,ETH-USDT"))


def test_a_file_may_be_given_another_symbol_than_its_name_tells(tmp_path: Path) -> None:
    tape = tape_for(VenueSettings.load(market=(write(tmp_path, "BTCUSDT_1h.csv"),), market_symbols="LTC-USDT"))
    assert [each.symbol for each in tape.instruments] == ["LTC-USDT"]
