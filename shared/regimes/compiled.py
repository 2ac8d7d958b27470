"""The filter over whole histories, compiled: the same function as live, so the same bits. The only room here that
imports numba; the engine never comes this way.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import numba
import numpy as np
import numpy.typing as npt
from numba.np.unsafe.ndarray import to_fixed_tuple  # pyright: ignore[reportUnknownVariableType]  # untyped

from shared.regimes.hmm import RegimeModel, filter_row, numbers_of

Array = npt.NDArray[np.float64]

_fixed: Any = to_fixed_tuple  # pyright: ignore[reportUnknownVariableType]
_filter_row: Any = numba.njit(filter_row, forceinline=True, error_model="numpy")


def filtered(model: RegimeModel, rows: Array) -> tuple[Array, Array]:
    """The posterior after each row of features (n_bars, d), and each row's log-likelihood given those before.

    Returns (n_bars, n_states) and (n_bars,): bit for bit what `forward_filter` says. Rows must be finite.
    """
    rows = np.clip(np.asarray(rows, dtype=np.float64), model.lowest, model.highest)
    posteriors, log_likelihoods = np.empty((len(rows), len(model.start))), np.empty(len(rows))
    if len(rows):
        numbers: Any = tuple(np.array(one) if isinstance(one, Sequence) else one for one in numbers_of(model))
        _loop(rows.shape[1])(rows, numbers, posteriors, log_likelihoods)
    return posteriors, log_likelihoods


@cache
def _loop(width: int) -> Callable[[Any, Any, Any, Any], None]:
    """The loop over rows of so many features: as a tuple of known length a row costs half of what it does as an array."""

    @numba.njit(error_model="numpy")
    def loop(rows: Any, numbers: Any, posteriors: Any, log_likelihoods: Any) -> None:  # pragma: no cover - compiled
        before, densities = posteriors[0][:0], np.empty(posteriors.shape[1])
        for t in range(len(rows)):
            row = _fixed(rows[t], width)
            log_likelihoods[t] = _filter_row(row, before, *numbers, densities, posteriors[t])
            before = posteriors[t]

    return loop
