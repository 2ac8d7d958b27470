"""How it is carried. `bus` says what a bus can do, `nats` and `memory` do it; one contract suite holds both to it.

A bus carries bytes and forgets; what must not be lost is kept in SQLite by who said it (outbox) and by who heard it
(inbox), see `shared.runtime.listening`.
"""
