"""The ladder of errors, ordered by who must act."""

from __future__ import annotations


class TrimtabError(Exception):
    """The base of all errors that we raise on purpose. Its text says what was expected, what it was, what to do."""


class NeedsOperator(TrimtabError):
    """A person must act: the service stops and says what to do. It is not restarted."""


class TryAgain(TrimtabError):
    """The world was not ready: the runtime tries again, with patience."""


class BadMessage(TrimtabError, ValueError):
    """The bytes or the values of a message cannot be used: it is parked with its reason, and work goes on."""
