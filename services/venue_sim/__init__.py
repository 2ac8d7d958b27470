"""A small exchange that speaks Binance's spot dialect, so that real ccxt trades on it.

The market (`market`, `recorded`, `tape`) knows what the prices do; the exchange (`exchange`, `requests`, `refusals`)
what becomes of an order; `dialect` how both are said. `venue` binds them and takes one step at a time; `pace` says
when; `routes` and `streams` are its doors.
"""
