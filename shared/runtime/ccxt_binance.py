"""ccxt's Binance class, and exchange objects made from it. Used by the ingester and the engine, imported by both lazily.

`import ccxt` brings in more than a hundred exchanges (3.3 CPU s). `import_binance` gives the packages their path without running them and
loads the one class that we use (0.6 CPU s). When ccxt is rearranged and that no longer works, the full import does.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from types import ModuleType
from typing import Any, Literal

import structlog

from shared.contracts.errors import NeedsOperator

PACKAGES = ("ccxt", "ccxt.async_support", "ccxt.pro")
TIMEOUT_MS = 10_000

log: Any = structlog.get_logger("trimtab.ccxt")
_imported: dict[str, type[Any]] = {}


def binance_class() -> type[Any]:
    """`ccxt.pro.binance`, by the short import where that is possible. Raises NeedsOperator without ccxt."""
    if "binance" not in _imported:
        _imported["binance"] = import_binance()
    return _imported["binance"]


def how_imported() -> Literal["short", "full"]:
    """Whether ccxt is here as one exchange or whole."""
    return "full" if hasattr(sys.modules.get("ccxt"), "exchanges") else "short"


def import_binance() -> type[Any]:
    """Import the class anew. Whole ccxt is used when it is there already, and when the short import fails."""
    found = importlib.util.find_spec("ccxt")
    if found is None or not found.submodule_search_locations:
        raise NeedsOperator("Trading through exchanges needs ccxt: install the extra `exchange`.")
    if hasattr(sys.modules.get("ccxt"), "exchanges"):
        return _full_import()
    try:
        return _short_import(found.submodule_search_locations[0])
    except (ImportError, AttributeError, KeyError) as error:
        log.warning("ccxt.full_import", reason=str(error))
        for name in [name for name in sys.modules if name.partition(".")[0] == "ccxt"]:
            del sys.modules[name]
        return _full_import()


def _short_import(root: str) -> type[Any]:
    for name in PACKAGES:
        package = sys.modules[name] = ModuleType(name)
        package.__path__ = [root + name.removeprefix("ccxt").replace(".", "/")]
    ccxt, rest, pro = (vars(sys.modules[name]) for name in PACKAGES)
    ccxt.update(async_support=sys.modules["ccxt.async_support"], pro=sys.modules["ccxt.pro"])
    errors = vars(importlib.import_module("ccxt.base.errors"))
    ccxt.update({name: error for name, error in errors.items() if isinstance(error, type)})
    # What the exchange modules expect to find in their packages, in the order in which they need it.
    ccxt["Exchange"] = importlib.import_module("ccxt.base.exchange").Exchange
    rest["Exchange"] = importlib.import_module("ccxt.async_support.base.exchange").Exchange
    rest["binance"] = importlib.import_module("ccxt.async_support.binance").binance
    pro["binance"] = importlib.import_module("ccxt.pro.binance").binance
    return pro["binance"]


def _full_import() -> type[Any]:
    return importlib.import_module("ccxt.pro").binance


def make_binance(
    kind: type[Any] | None = None, *, base_url: str = "", api_key: str = "", secret: str = "", is_local: bool = False
) -> Any:
    """A Binance spot exchange object; `kind` is a subclass of `binance_class()`, or None for itself.

    Without `base_url` it is the real Binance. With one, every call goes there: to venue_sim or to another server that
    speaks the dialect. `is_local` turns ccxt's own rate limiter off, which a real exchange would not forgive.
    Without key and secret it reads public data only. Close it with `await exchange.close()`.
    """
    exchange = (kind or binance_class())(
        {
            "apiKey": api_key,
            "secret": secret,
            "enableRateLimit": not is_local,
            "timeout": TIMEOUT_MS,
            "newUpdates": True,
            "options": {
                "defaultType": "spot",
                "fetchMarkets": {"types": ["spot"]},  # else a socket's BTCUSDT may become the perpetual
                "fetchCurrencies": False,
                "fetchMargins": False,
                "warnOnFetchOpenOrdersWithoutSymbol": False,
            },
        }
    )
    exchange.has["fetchCurrencies"] = False  # with keys it would ask for all coins and networks before each start
    if base_url:
        _redirect(exchange, base_url.rstrip("/"))
    return exchange


def _redirect(exchange: Any, base_url: str) -> None:
    """Send every address of this exchange to `base_url` (http or https): spot where it is spoken, 404 for the rest."""
    api = exchange.urls["api"]
    for name, address in api.items():
        if isinstance(address, str):
            api[name] = f"{base_url}/not-spot/{name}"
    api.update(public=f"{base_url}/api/v3", private=f"{base_url}/api/v3")
    socket = "ws" + base_url.removeprefix("http")
    # ccxt takes a stream for spot when its address holds `/stream`.
    api["ws"] = {"spot": f"{socket}/stream/ws", "ws-api": {"spot": f"{socket}/ws-api/v3"}}
