"""Prints `docs/messages.md` from the table of subjects, so that the page cannot say what the code does not."""

from __future__ import annotations

import sys
from typing import Any

from shared.contracts.subjects import STREAMS, SUBJECTS, Subject

INTRODUCTION = """# What is said

Every message of the house, printed from `shared/contracts/subjects.py` by `just messages`. A test keeps this page fresh.

A message is a frozen msgspec struct, MessagePack on the wire, inside an envelope: `id`, `type`, `version`, `at`
(venue time, ns UTC), `source`, `correlation` (the message that began the story, usually a bar), `cause` (the message
that led to this one) and `body`. The id is made from what the message is about, so the same fact said twice is kept once.
A value that is out of its range is refused when it is read, and the message is parked in `dlq.<stream>` with the reason.
"""


def handbook() -> str:
    """The whole page, as Markdown."""
    parts = [INTRODUCTION, "## Streams", "", "| stream | subjects | kept for | at most |", "| --- | --- | --- | --- |"]
    parts += [
        f"| {stream.name} | {', '.join(f'`{f}`' for f in stream.filters)} | {stream.max_age.days} days | "
        f"{stream.max_bytes // 2**20:,} MiB |"
        for stream in STREAMS
    ]
    for stream in (*STREAMS, None):
        parts += ["", f"## {stream.name if stream else 'Core NATS: said to who listens now, not kept'}", ""]
        for subject in SUBJECTS:
            if subject.stream == stream:
                parts += _described(subject)
    return "\n".join(parts).rstrip() + "\n"


def _described(subject: Subject[Any]) -> list[str]:
    message = subject.message
    about = (message.__doc__ or "").strip().split("\n\n")[0].replace("\n    ", " ")
    fields = ", ".join(f"`{name}`" for name in message.__struct_fields__)
    return [
        f"### `{subject.template}`",
        "",
        f"**{message.__name__}** v{message.VERSION}. {about}",
        "",
        f"- said by {', '.join(subject.spoken_by)}; heard by {', '.join(subject.heard_by)}",
        f"- fields: {fields}",
        "",
    ]


if __name__ == "__main__":
    sys.stdout.write(handbook())
