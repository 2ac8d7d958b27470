"""Handing notes over, at each channel's pace, until each was taken once."""

from __future__ import annotations

import asyncio
from contextlib import suppress

from services.notifier.channels import Answer, Channel
from services.notifier.queue import Parcel, forgotten, marked, next_parcel
from services.notifier.settings import NotifierSettings
from shared.contracts.operations import Notified
from shared.contracts.subjects import NOTIFIED
from shared.runtime.listening import Effects
from shared.runtime.service import Host

BACKOFF_S = (1.0, 2.0, 5.0, 10.0, 30.0, 60.0)
CLOSED_S = 60.0  # until a channel that takes nothing from us is asked again
STOP_S = 1.0  # that a message under way has at the stop


class Sender:
    """One channel's hand."""

    def __init__(self, host: Host[NotifierSettings], channel: Channel) -> None:
        self._host, self._channel = host, channel
        self._header = f"Trimtab, {host.settings.venue} {host.settings.mode}"
        self._more = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self._stopping = False
        self._troubles = 0

    def wake(self) -> None:
        """There is something to tell."""
        self._more.set()

    async def run(self) -> None:
        """Tell what waits, for ever."""
        while not self._stopping:
            self._more.clear()
            parcel = await next_parcel(self._host.store, self._channel.name, self._header, self._channel.most_chars)
            if self._stopping:
                return
            if parcel is None:
                await self._more.wait()
                continue
            self._idle.clear()
            try:
                pause_s = await self._hand_over(parcel)
            finally:
                self._idle.set()
            await asyncio.sleep(pause_s)  # the channel's own pace

    async def stop(self) -> None:
        """Take nothing new up, and let what is under way be answered."""
        self._stopping = True
        with suppress(TimeoutError):
            async with asyncio.timeout(STOP_S):
                await self._idle.wait()

    async def _hand_over(self, parcel: Parcel) -> float:
        """Send it once. Returns how long to wait before the next."""
        await self._host.store.commit(marked(parcel, "sending"))
        answer = await self._channel.send(parcel.text)
        log = self._host.log.bind(channel=self._channel.name, notes=len(parcel.notes), first=parcel.notes[0].note_id)
        if answer.became in ("delivered", "refused"):
            self._troubles = 0
            await self._host.act(lambda effects: self._done(effects, parcel, answer))
            log.info(f"note.{answer.became}", detail=answer.detail)
            self._host.health.is_there(self._channel.name)
            return 60.0 / self._channel.per_minute
        log.warning(f"note.{answer.became}", detail=answer.detail)
        if answer.became != "unanswered":
            await self._host.store.commit(marked(parcel, "waiting", answer.detail))
        if answer.became == "closed":
            self._host.health.is_missing(self._channel.name)
            return CLOSED_S
        pause_s = max(answer.after_s, 0.0 if answer.after_s else BACKOFF_S[min(self._troubles, len(BACKOFF_S) - 1)])
        self._troubles += 1
        return max(pause_s, 60.0 / self._channel.per_minute)

    async def _done(self, effects: Effects, parcel: Parcel, answer: Answer) -> None:
        delivered = answer.became == "delivered"
        effects.add(*marked(parcel, "sent" if delivered else "refused", answer.detail), forgotten(parcel))
        for note in parcel.notes:
            told = Notified(
                notification_id=note.note_id,
                channel=self._channel.name,
                delivered=delivered,
                text=note.text,
                detail=answer.detail,
                at=self._host.clock.now(),
            )
            effects.publish(NOTIFIED, told)
