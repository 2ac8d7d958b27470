"""What a strategy would have earned, how far to believe it, and the presets that come of it.

From bars to one run, each room standing on those above it:

data, grouping       files to bars: Parquet, feather, CSV, an exchange's zips, trades, panels; longer bars from shorter ones
listing, adjusting   what an instrument is by its name and prices; splits and dividends
funding, panels      what a perpetual pays; bars of several instruments side by side
sources, bars        what a command names, and what the ingester holds
charges, manifests   costs in people's words; what a run was told, and the hash that names it
scanners, driver     the compiled loops of `shared.trading`, and the one way to run them: an `Experiment`
trades, legs         fills to round trips, instrument by instrument
formulas, metrics, significance    every figure with its source, and how much of it is luck
results, repeating   one run and all that it tells; the same run again, to the same bits

Many runs:

axes, draws          parameter sets, laid out or drawn
outcomes, workers, backends        one set of many, in a process that may be killed, on whatever cores there are
run_store, grids, stability        computed once and counted as trials; the best, judged by its neighbours
windows, walk_forward              tuned on the past, traded on what follows
presets, candidates                what passed out of sample, as the governor takes it

What people see: `summaries` are figures in words, shown by `terminal`, `pages` and `charts`, `cards` and `drawn`
(notebooks), `reports` and `walk_reports` (files), `handbook` (docs). What they type is `commands` and `options`, in
Python `notebook`; `app` is the earlier system's line.

The service: `routes` and `jobs` take orders and queue them, `work` does one; `searches` says when presets are sought and
`search` how; `evidence` and `stress` answer the governor; `service` starts it all.
"""
