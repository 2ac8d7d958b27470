"""What the market does: features of closed bars, the causal filter over them, and names for what it finds. Pure.

`features` turns closed bars into numbers, `hmm` turns those into odds, `labels` names the states by what they emit,
`context` is what the bandit sees, and `reader` is all of it for one instrument, one closed bar at a time. Training
and serving, the engine and ml_service run these same functions. Fitting is elsewhere; numba is imported by
`compiled` alone, which runs the filter over whole histories.
"""
