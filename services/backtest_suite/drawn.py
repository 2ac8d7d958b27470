"""What a notebook shows of a result. Results know nothing of pages: `cards.py` knows how each kind is drawn."""

from __future__ import annotations

from functools import singledispatch


@singledispatch
def card(_result: object) -> str | None:
    """This result as HTML; None, and a notebook shows it in words, where nobody has said how."""
    return None


class Drawn:
    """Draws itself in a notebook."""

    def _repr_html_(self) -> str | None:
        return card(self)
