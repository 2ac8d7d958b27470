"""From a ruling to what is kept and said: the same for applicants, evidence, and people."""

from __future__ import annotations

from services.governor.applications import Ruling
from services.governor.memory import keep
from services.governor.settings import GovernorSettings
from shared.contracts.governance import ModelDemoted, ModelPromoted, PresetDemoted, PresetPromoted, StageChanged
from shared.contracts.subjects import subject_of
from shared.runtime.listening import Effects
from shared.runtime.service import Host

# Whoever hears one of these has it before it decides on the next bar.
TO_BE_BOOKED = (ModelPromoted, ModelDemoted, PresetPromoted, PresetDemoted)


def enact(host: Host[GovernorSettings], ruling: Ruling, effects: Effects) -> None:
    """Keep what a ruling changes, and say it in its order."""
    effects.add(*keep(ruling))
    for message in ruling.messages:
        said = effects.publish(subject_of(message), message)
        if isinstance(message, TO_BE_BOOKED):
            effects.afterwards(lambda said=said: host.progress.told(said.id))
        if isinstance(message, StageChanged):
            host.log.info(
                f"{message.kind}.{message.after}",
                subject=message.subject_id[:12],
                place=".".join(filter(None, (message.venue, message.strategy, message.symbol, message.timeframe))),
                line=message.sequence,
                actor=message.actor,
                reasons=message.reasons,
            )
