"""What the environment says to a service, and what it does not."""

from __future__ import annotations

from pathlib import Path

import pytest

from services.backtest_suite.settings import BacktestSettings
from shared.contracts.errors import NeedsOperator
from shared.runtime.settings import strategies_folder


def test_the_folder_of_strategies_is_not_a_list_of_their_names(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRIMTAB_STRATEGIES", "/srv/mine")

    assert strategies_folder() == Path("/srv/mine")
    assert BacktestSettings.load().strategies == ("momentum", "trend_follow")


def test_names_of_strategies_have_variables_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRADE_STRATEGIES", "momentum")
    assert BacktestSettings.load().strategies == ("momentum",)

    monkeypatch.setenv("TRIMTAB_BACKTEST_SUITE_STRATEGIES", "trend_follow")
    assert BacktestSettings.load().strategies == ("trend_follow",)


KEY = "a key of thirty-two characters, x"


def test_a_secret_may_lie_in_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "key").write_text(f"{KEY}\n", encoding="utf-8")
    monkeypatch.setenv("TRIMTAB_MODEL_KEY_FILE", str(tmp_path / "key"))
    assert BacktestSettings.load().signing_key == KEY.encode()

    monkeypatch.setenv("TRIMTAB_MODEL_KEY_FILE", str(tmp_path / "nowhere"))
    with pytest.raises(NeedsOperator, match=r"TRIMTAB_MODEL_KEY_FILE names .* cannot be read"):
        BacktestSettings.load()


def test_a_secret_is_never_printed_not_even_when_it_is_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRIMTAB_MODEL_KEY", KEY)
    settings = BacktestSettings.load()
    assert KEY not in settings.model_dump_json() + repr(settings)

    monkeypatch.setenv("TRIMTAB_MODEL_KEY", "too short")
    with pytest.raises(NeedsOperator, match="at least 16 characters, had 9") as refused:
        BacktestSettings.load()
    assert "too short" not in str(refused.value)


def test_only_a_secret_has_a_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRIMTAB_ACCOUNT_FILE", "/srv/account")
    with pytest.raises(NeedsOperator, match="TRIMTAB_ACCOUNT_FILE means nothing here"):
        BacktestSettings.load()
