"""Where compiled kernels are kept, and under which key: a fingerprint of all code that is inside them, and of our tuples.

numba's own key is the time stamp of one file, so an edit in an indicator would leave the old strategy in place. Only
kernels and our loops are kept here; numba's locators follow for everybody else.
"""

# pyright: standard, reportArgumentType=false, reportCallIssue=false, reportAttributeAccessIssue=false
# pyright: reportIncompatibleMethodOverride=false
# This is numba's inner API: intrinsics are called with one argument less than they are written with, and attributes
# are set on its modules from the environment.

from __future__ import annotations

import functools
import os
import sys
import tempfile
import warnings
from pathlib import Path
from typing import Any

import numba
import numpy as np
from numba.core import caching

from shared.trading.kernel import KERNELS, fingerprint

LOOPS: dict[Any, str] = {}  # what `compiled` builds around kernels -> the module whose classes it names
SHAPES: set[str] = set()  # modules whose tuples are arguments of kernels: an entry names their classes


class KernelLocator(caching._CacheLocator):
    """Tells numba where an entry lies and when it is stale: when its fingerprint is another."""

    def __init__(self, function: Any) -> None:
        self.key = entry_key(function)

    @classmethod
    def from_function(cls, py_func: Any, py_file: str) -> KernelLocator | None:
        return cls(py_func) if py_func in KERNELS or py_func in LOOPS else None

    def get_cache_path(self) -> str:
        return str(cache_folder())

    def get_source_stamp(self) -> str:
        return self.key

    def get_disambiguator(self) -> str:
        return self.key[:16]

    def ensure_cache_path(self) -> None:
        cache_folder().mkdir(parents=True, exist_ok=True)


def entry_key(function: Any) -> str:
    """The fingerprint of a compiled function: its code, what compiles it, how we have that done, and our tuples.

    The tuples because an entry names classes: one of a class that is gone would not load.
    """
    return fingerprint(function, LOOPS.get(function, ""), _toolchain(), tuples())


@functools.cache
def tuples() -> str:
    """The fingerprint of all classes of tuples in the modules of `SHAPES`."""
    every = {value for name in SHAPES for value in vars(sys.modules[name]).values() if hasattr(value, "_fields")}
    named = {f"{each.__module__}.{each.__qualname__}": each for each in every if isinstance(each, type)}
    return fingerprint(*(named[name] for name in sorted(named)))


@functools.cache
def _toolchain() -> tuple[str, ...]:
    room = sorted(Path(__file__).parent.glob("*.py"))
    return numba.__version__, np.__version__, *(file.read_text(encoding="utf-8") for file in room)


@functools.cache
def cache_folder() -> Path:
    """`TRIMTAB_CACHE`, else the user's cache folder; a temporary one, said once, where it cannot be written."""
    named = os.environ.get("TRIMTAB_CACHE")
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    folder = (Path(named) if named else home) / "trimtab" / "kernels"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        folder = Path(tempfile.mkdtemp(prefix="trimtab-kernels-"))
        warnings.warn(
            f"Compiled strategies are not kept ({error}); set TRIMTAB_CACHE to a folder of yours.", stacklevel=2
        )
    return folder


def install(shapes: set[str]) -> None:
    """Put our locator before numba's own; `shapes` are the modules of `SHAPES`. Not by its setting, which is read anew whenever a variable of numba changes."""
    SHAPES.update(shapes)
    if KernelLocator not in caching.CacheImpl._locator_classes:
        caching.CacheImpl._locator_classes.insert(0, KernelLocator)
