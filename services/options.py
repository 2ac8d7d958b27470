"""The options that verbs beside a running stack have in common."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

DEFAULT_DATA = Path("var")

DataDir = Annotated[Path, typer.Option("--data-dir", help="Where a stack keeps its data.")]
Json = Annotated[bool, typer.Option("--json", help="One JSON object on the last line, for programs.")]
Reason = Annotated[str, typer.Option("--reason", help="Why; it is kept in the record.")]
