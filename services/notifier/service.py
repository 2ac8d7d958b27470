"""The shell: hear what people want to know of, queue it with the inbox, and let each channel's sender tell it."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

from services.notifier.channels import open_channels
from services.notifier.daily import Daily
from services.notifier.phrases import Note, note_of
from services.notifier.queue import TABLES, put
from services.notifier.sending import Sender
from services.notifier.settings import NotifierSettings
from shared.contracts.errors import BadMessage
from shared.contracts.execution import TradeClosed
from shared.contracts.operations import Health
from shared.contracts.subjects import HEALTH, SUBJECTS
from shared.contracts.times import from_ms
from shared.contracts.wire import Message, message_id, open_envelope, unpack
from shared.runtime.listening import Effects
from shared.runtime.service import Host, Service

HEARD = tuple(s for s in SUBJECTS if "notifier" in s.heard_by and s.stream is not None)

LINGER_S = 0.25  # nobody waits for a message shorter than that


async def serve(host: Host[NotifierSettings]) -> None:
    """Events in, notes out."""
    settings = host.settings
    channels = await open_channels(settings)
    senders = [Sender(host, channel) for channel in channels]
    names = [channel.name for channel in channels]

    def tell(effects: Effects, note_id: str, note: Note, at: datetime) -> None:
        put(effects, list(names), note_id, note, at)
        for sender in senders:
            effects.afterwards(sender.wake)

    daily = Daily(tell)
    await daily.recover(host.store)

    async def on_message(message: Message, effects: Effects) -> None:
        note = note_of(message, settings)
        if isinstance(message, TradeClosed) and settings.daily:
            daily.book(message, effects)
        if note is not None:
            tell(effects, message_id(message), note, message.happened_at)

    async def sum_days_up() -> None:
        while True:
            await daily.is_due.wait()
            daily.is_due.clear()

            async def work(effects: Effects) -> None:
                daily.tell_before(host.clock.now().date(), effects)

            await host.act(work)

    for channel, sender in zip(channels, senders, strict=True):
        host.closers.append(channel.close)
        host.stoppers.append(sender.stop)
        host.spawn(sender.run(), channel.name)
    host.spawn(sum_days_up(), "daily")
    await host.bus.hear(f"{HEALTH.root}.engine", market_time(host, daily.time_is))
    await host.listen(dict.fromkeys(HEARD, on_message), lambda: LINGER_S)
    host.log.info("channels", names=names)


def market_time(host: Host[NotifierSettings], time_is: Callable[[datetime], None]) -> Callable[[str, bytes], None]:
    """Hears from the engine's word on itself how far the market has come: bars are not for this service."""

    def on_health(_subject: str, payload: bytes) -> None:
        try:
            said = open_envelope(unpack(payload), Health)
        except BadMessage:
            return  # it is said again within a second
        if said.at:
            now = from_ms(min(said.at.values()))
            host.clock.saw(now)
            time_is(now)

    return on_health


SERVICE = Service("notifier", NotifierSettings, serve, TABLES)
