"""What to do about the market: strategies, indicators, risk, fills, ledger, performance, and the Trader. All pure.

One source, two tiers. Everything marked `@kernel` is plain Python that the engine calls bar by bar (`trader.Trader`)
and that `compiled` turns into a loop for backtests: same functions, same bits. The rooms:

    kernel       the marker, rings, and what can be done with a state (copy, freeze, thaw, same)
    values       Bar, Regime, Target
    indicators   sma, ema, atr, rsi, bollinger, donchian, deviation: small state machines
    higher_bars  bars of a higher timeframe, seen only once they have closed
    strategy     what a strategy is: Params, State, start, step, and how its parameters are checked
    strategies   those we bring, and those of the user's folder
    fills        the order of events: fill at the open, judge and decide at the close
    ledger       cash and lots, in integers
    risk         how much: exposure to whole lots
    performance  sums kept in the loop, and the figures made of them
    scales       Decimal and float to ledger integers and back
    loop         one run over many bars, written once
    portfolio    many instruments: slices of a market, weights, one account, and the order of events
    portfolio_loop  one run over many slices
    ranking      the largest few of many
    compiled     the loop compiled, over one parameter set, a grid, or given targets (the only one with numba)
    trader       one sleeve as the engine hosts it
"""
