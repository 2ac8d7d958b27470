"""From the bytes of a preset to parameters that a sleeve's strategy takes, or the reason why not."""

from __future__ import annotations

from shared.artifacts.presets import Preset, preset_from_bytes
from shared.contracts.errors import BadMessage
from shared.trading.strategy import BadParams, Strategy


def usable_preset(preset_id: str, content: bytes, strategy: Strategy, symbol: str, timeframe: str) -> Preset:
    """The preset, if this sleeve can use it; else BadMessage says why not."""
    preset = preset_from_bytes(content, preset_id)
    about = (preset.strategy, preset.symbol, preset.timeframe)
    if about != (strategy.name, symbol, timeframe):
        raise BadMessage(f"Preset {preset_id[:12]} must be for {strategy.name} {symbol} {timeframe}, was for {about}.")
    if preset.source_hash != strategy.source:
        raise BadMessage(
            f"Preset {preset_id[:12]} was found with other code of {strategy.name} "
            f"({preset.source_hash[:12]}, here {strategy.source[:12]}): find it anew by a backtest."
        )
    try:
        strategy.params(preset.params)
    except BadParams as error:
        raise BadMessage(f"Preset {preset_id[:12]} cannot be used. {error}") from error
    return preset
