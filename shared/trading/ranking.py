"""The largest of many: for strategies that hold the best few of a market."""

from __future__ import annotations

import math

from shared.trading.kernel import kernel


@kernel
def weigh_largest(scores: list[float], top: int, weight: float, weights: list[float], room: list[float]) -> None:
    """Give `weight` to the `top` largest scores (of equal ones, to those that stand first) and 0 to the others.

    NaN is no score. `room` is a ring of the same size, whose content is lost.
    """
    count = 0
    for k in range(len(scores)):
        if not math.isnan(scores[k]):
            room[count] = scores[k]
            count += 1
    left = min(top, count)
    least = kth_largest(room, count, left) if left > 0 else math.inf
    for k in range(len(scores)):
        weights[k] = 0.0
        if scores[k] > least:
            weights[k] = weight
            left -= 1
    k = 0
    while left > 0:
        if scores[k] == least:
            weights[k] = weight
            left -= 1
        k += 1


@kernel
def kth_largest(values: list[float], count: int, k: int) -> float:
    """The `k`-th largest (from 1) of the first `count` values, whose order is lost. None of them is NaN.

    Source: C. A. R. Hoare, "Algorithm 65: Find", Communications of the ACM 4(7), 1961.
    """
    first = 0
    last = count - 1
    while first < last:
        pivot = values[(first + last) // 2]
        i = first
        j = last
        while i <= j:
            while values[i] > pivot:
                i += 1
            while values[j] < pivot:
                j -= 1
            if i <= j:
                swapped = values[i]
                values[i] = values[j]
                values[j] = swapped
                i += 1
                j -= 1
        if k - 1 <= j:
            last = j
        elif k - 1 >= i:
            first = i
        else:
            break
    return values[k - 1]
