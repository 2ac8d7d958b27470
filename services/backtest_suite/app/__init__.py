"""The door of the system before this one: `python -m app.cli` inside services/backtest_suite."""
