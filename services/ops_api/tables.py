"""The read models as tables. Everything in them can be folded again from the streams, but sessions."""

from __future__ import annotations

TABLES = (
    # What happened, in words that can be looked up: all but bars, readings and snapshots.
    (
        "create table events (id text primary key, type text not null, at_ms integer not null, sleeve text not null,"
        " source text not null, correlation text not null, cause text not null, body blob not null) without rowid"
    ),
    "create index events_by_type on events (type, at_ms)",
    # Which events speak of an id (an order, a decision, a preset, a model, a trade).
    (
        "create table mentions (named text not null, type text not null, at_ms integer not null, event text not null,"
        " primary key (named, type, at_ms, event)) without rowid"
    ),
    (
        "create table trades (trade_id text primary key, closed_ms integer not null, symbol text not null,"
        " strategy text not null, timeframe text not null, side text not null, exit_reason text not null,"
        " body blob not null) without rowid"
    ),
    "create index trades_by_close on trades (closed_ms, trade_id)",
    (
        "create table equity (account text not null, at_ms integer not null, cash text not null, equity text not null,"
        " primary key (account, at_ms)) without rowid"
    ),
    (
        "create table bars (series text not null, opened_ms integer not null, open real not null, high real not null,"
        " low real not null, close real not null, volume real not null, primary key (series, opened_ms)) without rowid"
    ),
    (
        "create table readings (series text not null, opened_ms integer not null, regime text not null, bull real,"
        " bear real, chop real, model_id text not null, primary key (series, opened_ms)) without rowid"
    ),
    # The newest message of its kind about one thing: what is true now.
    (
        "create table latest (kind text not null, about text not null, body blob not null,"
        " primary key (kind, about)) without rowid"
    ),
    "create table counts (name text primary key, n integer not null) without rowid",
    (
        "create table commands (command_id text primary key, verb text not null, body blob not null,"
        " answer blob) without rowid"
    ),
    # Who logged in on the page: hashes of cookies, and the login link that was used.
    "create table sessions (sha256 text primary key, ends_ms integer not null) without rowid",
    "create table used_logins (sha256 text primary key) without rowid",
    # How far readings were compared with the engine's.
    "alter table readings add column reading_hash text not null default ''",
    "create table compared (series text primary key, state blob not null) without rowid",
    # How well the model foretold the bar, nats; null while that is unknown.
    "alter table readings add column log_likelihood real",
)
