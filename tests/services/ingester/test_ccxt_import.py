"""One exchange is imported, not a hundred; and when ccxt no longer allows that, whole ccxt does the same job."""

import subprocess
import sys

ASK = """
import sys
from shared.runtime import ccxt_binance
{before}
kind = ccxt_binance.binance_class()
exchange = ccxt_binance.make_binance(base_url="http://127.0.0.1:9", is_local=True)
from ccxt.base.errors import NetworkError
modules = sum(name.partition(".")[0] == "ccxt" for name in sys.modules)
print(ccxt_binance.how_imported(), kind.__module__, exchange.urls["api"]["public"], modules)
"""


def imported(before: str = "") -> list[str]:
    """What a fresh interpreter says of its import."""
    asked = subprocess.run(
        [sys.executable, "-c", ASK.format(before=before)], capture_output=True, text=True, timeout=60, check=True
    )
    return asked.stdout.splitlines()[-1].split()


def test_the_short_import_is_enough_for_this_ccxt() -> None:
    how, module, address, modules = imported()
    assert (how, module, address) == ("short", "ccxt.pro.binance", "http://127.0.0.1:9/api/v3")
    assert int(modules) < 60


def test_whole_ccxt_is_imported_when_it_was_rearranged() -> None:
    how, module, address, modules = imported('ccxt_binance.PACKAGES = ("ccxt", "ccxt.elsewhere", "ccxt.pro")')
    assert (how, module, address) == ("full", "ccxt.pro.binance", "http://127.0.0.1:9/api/v3")
    assert int(modules) > 200
