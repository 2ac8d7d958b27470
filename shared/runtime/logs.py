"""One log line is one event: `engine  trade.closed  BTC-USDT  +0.8R`. Console for people, JSON for machines."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import MutableMapping
from contextvars import ContextVar
from typing import Any, Literal

import structlog

correlation: ContextVar[str] = ContextVar("correlation", default="")  # which bar began what is done now; "" for none
SECRETS = ("token", "password", "secret", "api_key", "authorization", "webhook")


def set_up_logs(service: str, form: Literal["auto", "console", "json"], level: str) -> None:
    """Send everything, our own lines and the libraries', to stdout in one form."""
    as_json = form == "json" or (form == "auto" and not sys.stdout.isatty())
    shared: list[structlog.typing.Processor] = [
        _with_story,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        _named(service),
        _without_secrets,
    ]
    renderer: structlog.typing.Processor = (
        structlog.processors.JSONRenderer() if as_json else structlog.dev.ConsoleRenderer(colors=sys.stdout.isatty())
    )
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.processors.format_exc_info,
                renderer,
            ],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    for chatty in ("httpx", "httpcore", "uvicorn.error", "uvicorn.access", "ccxt", "asyncio", "telegram"):
        logging.getLogger(chatty).setLevel(logging.WARNING)


def in_words(line: str) -> str:
    """A JSON log line as a person reads it: `event  key=value ...`, or the error alone; other lines as they are."""
    try:
        event = json.loads(line)
        name = event.pop("event")
    except (ValueError, KeyError, AttributeError, TypeError):
        return line
    if name == "needs_operator":
        return str(event.get("error", name))
    told = (f"{key}={value}" for key, value in event.items() if key not in ("level", "timestamp", "service"))
    return "  ".join((str(name), *told))


def _with_story(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    if story := correlation.get():
        event.setdefault("correlation", story)
    return event


def _named(service: str) -> structlog.typing.Processor:
    def add(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
        event["service"] = service
        return event

    return add


def _without_secrets(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """A secret that strays into a log line is shown as ***."""
    for key in event:
        if any(word in key.lower() for word in SECRETS):
            event[key] = "***"
    return event
