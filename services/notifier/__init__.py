"""Tells people: Telegram and Slack messages about trades, promotions, refusals, alerts and breakers.

`phrases` puts an event into words, `queue` keeps what is to be told until a channel has taken it, `sending` hands it
over at the channel's pace, `channels` speaks the two protocols, `daily` sums a day up. Without a channel it runs idle.
"""
