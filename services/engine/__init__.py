"""Bars in, orders out: hosts a Trader for each sleeve, keeps it from harm, and answers for every order.

engine          what is done with each message
desk            where bars meet sleeves; pure
risk, breakers  what holds an order back, and what holds trading back as a whole; pure
executor        from an intent to the venue's answer, once
orders          the life of an order, and its rows
venue           what is asked of a venue; paper_venue and ccxt_venue are two
venues          which of them the settings mean
reconciliation  our books against the venue's account
journal         what was heard and said, in a chain of hashes
keeper, records what is said and kept, and the rows
presets         from a preset's bytes to parameters
status, routes  what one may ask
service         start, which is also recovery
"""
