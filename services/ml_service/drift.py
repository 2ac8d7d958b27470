"""Whether a model still foretells its market as well as it did on bars held out from its fit. Pure.

A one-sided CUSUM over batches of 48 bars: bars share their windows with their neighbours, batches hardly do. A batch
counts by how many deviations it lies below what was expected, less half of one; the sum never falls below 0, and when it
passes `ALARM` the model has drifted, since the bar at which the sum last stood at 0.

Source: Page, "Continuous Inspection Schemes", Biometrika 41, 1954; allowance 1/2 and limit 8 let a sum of independent
normal batches pass by chance once in 19,000 batches, 900,000 bars: (exp(b) - b - 1) * 2 with b = 8 + 1.166, Siegmund,
"Sequential Analysis", 1985, equation 2.56.
"""

from __future__ import annotations

import math

import msgspec

from shared.regimes.features import LONG

BATCH_BARS = LONG
ALLOWANCE = 0.5  # deviations
ALARM = 8.0  # deviations


class Drift(msgspec.Struct, frozen=True):
    """What was seen since the sum last stood at 0: log-likelihoods a bar, nats."""

    expected: float
    seen: float
    bars: int


class DriftTest(msgspec.Struct):
    """The test of one model on one series."""

    expected: float = math.nan  # log-likelihood of a bar on the held-out ones, nats; NaN: nothing was promised
    deviation: float = math.nan  # standard deviation of its mean over a batch
    batch: float = 0.0  # sum over the bars of the batch at hand
    batch_bars: int = 0
    below: float = 0.0  # the CUSUM, deviations
    since: float = 0.0  # sum over the bars since it last stood at 0
    since_bars: int = 0

    def on_bar(self, log_likelihood: float) -> Drift | None:
        """Take a bar's log-likelihood in; a drift is told once, and the test begins anew."""
        if not (self.deviation > 0.0 and math.isfinite(log_likelihood)):
            return None
        self.batch += log_likelihood
        self.batch_bars += 1
        if self.batch_bars < BATCH_BARS:
            return None
        self.since += self.batch
        self.since_bars += BATCH_BARS
        self.below += (self.expected - self.batch / BATCH_BARS) / self.deviation - ALLOWANCE
        self.batch, self.batch_bars = 0.0, 0
        if self.below > 0.0 and self.below <= ALARM:
            return None
        drifted = Drift(self.expected, self.since / self.since_bars, self.since_bars) if self.below > ALARM else None
        self.below, self.since, self.since_bars = 0.0, 0.0, 0
        return drifted
