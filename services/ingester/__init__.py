"""Venues to closed bars: each once, in strict order, kept before it is told.

`candles` and `sequence` are pure: what a bar is, and whose turn it is. `exchange` is ccxt; `follow` keeps one series
complete; `archive` and `bars` are what is kept and given out again; `symbols` says which ones.
"""
