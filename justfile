# The one list of commands: compose, CI, the README and ./trimtab test use the same.

export PATH := justfile_directory() / ".venv/bin" + ":" + env("PATH")

# print this list
default:
    @just --list --unsorted

# everything a change must pass: format, lint, types, import arrows, tests
check *pytest_options: format lint types arrows (test pytest_options)

# no line differs from the formatter's
format:
    ruff format --check .

# likely mistakes, banned clocks and chance
lint:
    ruff check .

# strict on shared
types:
    pyright

# services above shared, independent of each other; contracts at the ground
arrows:
    lint-imports --no-cache

# the whole suite, its files on two cores
test *options:
    python -m pytest -n 2 --dist loadfile --no-loadscope-reorder {{ options }}

# put the code into its form
tidy:
    ruff format .
    ruff check --fix .

# the whole stack on a simulated market, to its end
demo:
    ./trimtab up --until-end

# speed, as ratios in one run
bench *options:
    python -m pytest tests/benchmarks --benchmark-enable -s {{ options }}

# print docs/messages.md from the table of subjects
messages:
    python -m shared.contracts.handbook > docs/messages.md

# print docs/metrics.md from the docstrings of the formulas
metrics:
    python -m services.backtest_suite.handbook > docs/metrics.md

# renew the golden bytes of every message; look at the difference before you commit it
golden:
    python -m tests.pure.contracts.samples

# renew what each strategy does on real and simulated bars; shows every figure that changes, old -> new
regressions:
    python -m tests.pure.trading.regressions
    python -m tests.pure.trading.portfolio.regressions

# what the regime model says about years of real bars: docs/regimes_measured.md and its pictures
regimes:
    python -m tests.campaigns.regimes_report

# lock the libraries again (names and hashes, no address)
lock:
    uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header \
        --extra exchange --extra learn --extra backtest --extra broker --extra notify pyproject.toml -o requirements.lock
    uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header \
        --all-extras pyproject.toml -c requirements.lock -o requirements-dev.lock

# artifacts spoiled before they are hashed and signed anew: none that is unsound loads, none crashes
mutation-campaign cases="100000":
    python -m tests.pure.artifacts.mutations {{ cases }}
