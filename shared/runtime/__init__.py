"""How a service lives. Every service is a `Service` (name, settings, tables, `serve`), hosted by `run`:

    async def serve(host: Host[Settings]) -> None:
        controller = Controller.recover(await host.store.rows("select ..."))   # start and recovery are one path

        async def on_reading(reading: RegimeReading, effects: Effects) -> None:
            decision = controller.decide(reading)                               # decide (pure)
            effects.execute("insert into decisions values (?, ?)", ...)         # keep ...
            effects.publish(PARAM_DECISION, decision)                           # ... and tell

        host.web.include_router(routes(controller))                             # host.web is None in tests without HTTP
        await host.listen({REGIME_READING: on_reading, TRADE_CLOSED: on_trade})

    SERVICE = Service("param_controller", ParamSettings, TABLES, serve)

`serve` returns once everything is under way; long work runs in `host.spawn(coroutine, name)`, and a task that ends
by an error ends the service (the launcher starts it again). What a handler executes and publishes, its inbox row and
the stream's position are one SQLite transaction; then the message is acknowledged, and the outbox pump publishes.
Handlers of one service never run at the same time. See `listening`, `store`, `progress`, `service`;
`process` is one in a process of its own.
"""
