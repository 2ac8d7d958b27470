"""Which admitted preset each sleeve uses now, with what odds, and what came of it.

bandit       linear Thompson sampling; pure
sleeves      what one sleeve remembers: arms, posteriors, the decision that stands; pure
holding      whether a trade is open, as the engine's words tell it; pure
controller   readings, trades and promotions in, decisions and lessons out; pure
memory       what is kept, and how it comes back
routes       the same asked over HTTP
service      the shell: a due decision waits for all that the engine did up to its bar
"""
