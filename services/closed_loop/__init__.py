"""The whole closed loop over history, in one process: the services as they are, on a memory bus and a replay clock.

`house` hosts them, `replay` tells them the bars one time at a time and waits until all have come, `contribution` asks
what the bandit and the regime were worth, `report` says it. A roof, like the launcher: it may know every service.
"""
