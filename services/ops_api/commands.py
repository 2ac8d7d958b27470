"""Commands of people: told to the engine once, answered when it has answered."""

from __future__ import annotations

import asyncio
from typing import Literal

import msgspec

from services.ops_api.settings import OpsSettings
from shared.contracts import subjects as said
from shared.contracts.errors import BadMessage
from shared.contracts.operations import Audited
from shared.contracts.risk import Command, CommandAnswered, Flatten, Halt, Pause, Resume
from shared.contracts.subjects import Subject
from shared.contracts.times import to_ms
from shared.contracts.wire import TOKEN
from shared.runtime.listening import Effects
from shared.runtime.service import Host

Verb = Literal["pause", "resume", "flatten", "halt"]
VERBS: dict[Verb, tuple[Subject[Command], type[Command]]] = {
    "pause": (said.PAUSE, Pause),  # pyright: ignore[reportAssignmentType]  # a Subject[Pause] carries a Command
    "resume": (said.RESUME, Resume),  # pyright: ignore[reportAssignmentType]
    "flatten": (said.FLATTEN, Flatten),  # pyright: ignore[reportAssignmentType]
    "halt": (said.HALT, Halt),  # pyright: ignore[reportAssignmentType]
}


class CommandState(msgspec.Struct, frozen=True, kw_only=True):
    """What became of a command. `done` is None while the engine has not answered."""

    command_id: str
    verb: Verb
    done: bool | None
    detail: str


class Commands:
    """The engine's ear. The same idempotency key is the same command, however often it is sent."""

    def __init__(self, host: Host[OpsSettings]) -> None:
        self._host = host
        self._waiting: dict[str, asyncio.Future[CommandAnswered]] = {}

    def answered(self, answer: CommandAnswered) -> None:
        """The engine answered; called after its answer was kept."""
        waiting = self._waiting.get(answer.command_id)
        if waiting is not None and not waiting.done():
            waiting.set_result(answer)

    async def send(self, verb: Verb, actor: str, reason: str, key: str) -> CommandState:
        """Tell the engine, and wait a while for its answer. Raises BadMessage on a key that meant another command."""
        clock = self._host.clock
        command_id = key or f"{actor}-{verb}-{to_ms(clock.wall())}"
        if not TOKEN.fullmatch(command_id):
            raise BadMessage(f"An idempotency key must be 1 to 64 of letters, digits, _ and -, was {key!r}.")
        waiting = self._waiting.setdefault(command_id, asyncio.get_running_loop().create_future())
        try:
            known = await self._tell(verb, command_id, actor, reason)
            if known is not None:
                return _state(verb, known)
            async with asyncio.timeout(self._host.settings.answer_timeout_s):
                return _state(verb, await asyncio.shield(waiting))
        except TimeoutError:
            return CommandState(
                command_id=command_id,
                verb=verb,
                done=None,
                detail="The engine has not answered yet; it will act when it reads this. Send the same key to ask again.",
            )
        finally:
            if self._waiting.get(command_id) is waiting:
                del self._waiting[command_id]

    async def _tell(self, verb: Verb, command_id: str, actor: str, reason: str) -> CommandAnswered | None:
        """Publish it unless it was; the answer when there is one already."""
        subject, kind = VERBS[verb]
        known: CommandAnswered | None = None

        async def work(effects: Effects) -> None:
            nonlocal known
            row = await self._host.store.row("select verb, answer from commands where command_id = ?", command_id)
            if row is not None:
                if row[0] != verb:
                    raise BadMessage(f"The key {command_id!r} was used for {row[0]!r} before: take a new one.")
                known = None if row[1] is None else msgspec.msgpack.decode(row[1], type=CommandAnswered)
                return
            account, now = self._host.settings.account, self._host.clock.now()
            command = kind(command_id=command_id, account=account, actor=actor, reason=reason, at=now)
            effects.execute(
                "insert into commands values (?, ?, ?, null)", command_id, verb, msgspec.msgpack.encode(command)
            )
            effects.publish(subject, command)
            audit = Audited(
                audit_id=f"ops_api-{command_id}",
                service="ops_api",
                actor=actor,
                action=f"ops.{verb}",
                detail=reason,
                at=now,
            )
            effects.publish(said.AUDITED, audit)

        await self._host.act(work)
        return known


def _state(verb: Verb, answer: CommandAnswered) -> CommandState:
    return CommandState(command_id=answer.command_id, verb=verb, done=answer.done, detail=answer.detail)
