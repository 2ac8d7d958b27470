"""What is quick to start imports little: held by what may not be imported, because seconds depend on the machine."""

from __future__ import annotations

import subprocess
import sys

HEAVY = [
    "ccxt",
    "fastapi",
    "markdown_it",
    "msgspec",
    "numba",
    "numpy",
    "polars",
    "pyarrow",
    "pydantic",
    "rich",
    "sklearn",
    "uvicorn",
]


def test_the_help_comes_without_what_the_verbs_need() -> None:
    code = (
        "import sys; from services.cli import app\n"
        "try: app(['--help'], prog_name='trimtab')\n"
        f"finally: print([name for name in {HEAVY!r} if name in sys.modules])"
    )
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=30).stdout
    assert told.startswith("Usage: trimtab")
    assert told.strip().endswith("[]")
