"""Which code this is."""

from __future__ import annotations

from functools import cache
from importlib.metadata import PackageNotFoundError, version


@cache  # it is looked for in every folder of the path
def code_version() -> str:
    """The version of this distribution, or `source` in a checkout that is not installed."""
    try:
        return version("trimtab")
    except PackageNotFoundError:
        return "source"
