# Everything a person or a CI job runs goes through here. It needs Python 3.11 with venv, and make.
# The syntax is that of GNU make 3.81, which macOS still ships, and of POSIX sh.

STUDY ?= blobs-supervised
ARGS ?=

# How many trials `chaos` runs, and at which of the events that it lists: 100, 26-50; one of all `kinds`; all.
TRIALS ?= 100
POINTS ?= all

# Kept apart so that `test` and `test-slow` divide the suite: no test falls between them.
SLOW := slow or browser or team or chaos
BIN := .venv/bin

.PHONY: help run test test-browser test-team test-slow chaos check format ui bench verdicts setup lock clean

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-12s  %s\n", $$1, $$2}' Makefile

run: setup ## Run a study: make run STUDY=name-or-file ARGS="--seeds 5"
	@$(BIN)/layerwise run "$(STUDY)" $(ARGS)

test: setup ## Run the fast tests: make test ARGS="-k engine"
	@$(BIN)/python -m pytest -n 2 --dist loadfile -m "not ($(SLOW))" $(ARGS)

test-browser: setup ## Look at the pages in a real browser; installs Debian's chromium where it is missing
	@command -v chromium >/dev/null || { apt-get update -qq && apt-get install -y -qq chromium; } >/dev/null 2>&1 || \
	    echo "no chromium, and it cannot be installed here: the browser tests will be skipped"
	@$(BIN)/python -m pytest -m browser tests/browser $(ARGS)

# Debian's package would make and start a server of its own.
test-team: setup ## Run studies on a team's servers; installs Debian's postgresql where it is missing
	@ls /usr/lib/postgresql/*/bin/initdb >/dev/null 2>&1 || command -v initdb >/dev/null || { \
	    export DEBIAN_FRONTEND=noninteractive; apt-get update -qq && apt-get install -y -qq postgresql-common && \
	    sed -i 's/^#* *create_main_cluster.*/create_main_cluster = false/' /etc/postgresql-common/createcluster.conf && \
	    apt-get install -y -qq --no-install-recommends postgresql; } >/dev/null 2>&1 || \
	    echo "no PostgreSQL, and it cannot be installed here: the tests of a team's servers will be skipped"
	@$(BIN)/python -m pytest -m team tests/team $(ARGS)

test-slow: setup ## Run the tests that `make test` leaves out: long, browser, a team's servers, a few trials of chaos
	@$(BIN)/python -m pytest -m "$(SLOW)" $(ARGS)

chaos: setup ## Kill, crash, fill the disk and damage files, for hours: make chaos TRIALS=26-50 POINTS=1-200
	@CHAOS_TRIALS="$(TRIALS)" CHAOS_POINTS="$(POINTS)" $(BIN)/python -m pytest -s -m chaos tests $(ARGS)

check: setup ## Check format, lint and types, and the lock for known vulnerabilities
	@$(BIN)/ruff format --check
	@$(BIN)/ruff check
	@$(BIN)/ty check
	@PATH="$(BIN):$$PATH" $(BIN)/python -m tests.vulnerabilities

format: setup ## Format the code and apply safe lint fixes
	@$(BIN)/ruff check --fix-only
	@$(BIN)/ruff format

ui: setup ## Open the MLflow and Prefect pages on the runs of this folder
	@$(BIN)/layerwise ui $(ARGS)

bench: setup ## Time the same work by every way that one would go, side by side: half an hour
	@cmp -s benchmarks/jax.lock .venv/jax/made-from || { rm -rf .venv/jax && $(BIN)/python -m venv .venv/jax && \
	    PIP_DISABLE_PIP_VERSION_CHECK=1 .venv/jax/bin/python -m pip install --quiet --no-input --require-hashes \
	    --no-deps --only-binary :all: -r benchmarks/jax.lock && cp benchmarks/jax.lock .venv/jax/made-from; } || \
	    { rm -rf .venv/jax; echo "JAX cannot be installed here: its parts are left out"; }
	@$(BIN)/python -m benchmarks.suite $(ARGS)

verdicts: setup ## Run every ready-made study, and write what it said of its claims into the README
	@$(BIN)/python -m benchmarks.verdicts $(ARGS)

setup: ## Install the locked packages into .venv (the other targets do so when needed)
	@sh -c "$$SET_UP"

lock: ## Make requirements.lock anew from pyproject.toml, keeping versions that still fit
	@command -v uv >/dev/null || { echo "make lock: no uv on PATH; expected uv; mend it with: pip install uv" >&2; exit 1; }
	@uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
	    --no-annotate --extra servers --group dev pyproject.toml -o requirements.lock --custom-compile-command 'make lock'
	@uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-annotate \
	    --group jax -c requirements.lock -o benchmarks/jax.lock --custom-compile-command 'make lock'

clean: ## Remove caches and build leftovers; runs, results and .venv stay
	@find . \( -path ./.venv -o -path ./.layerwise -o -path ./mlruns -o -path ./.git \) -prune \
	    -o -type d -name __pycache__ -exec rm -rf {} +
	@rm -rf .pytest_cache .ruff_cache .hypothesis build dist *.egg-info

# The script is exported for `setup` alone, and as it stands: `value` spares it the doubling of every dollar.
setup: export SET_UP = $(value set_up)

define set_up
set -eu

sum() { { sha256sum "$1" 2>/dev/null || shasum -a 256 "$1"; } | cut -d ' ' -f 1; }

# Contents, not times, decide: a fresh clone has arbitrary times. The folder is part of it because an environment
# that was moved or copied still imports the code of the old place.
packages="$(sum requirements.lock) $(pwd -P)"
wanted="$packages $(sum pyproject.toml)"
made_from() { cat .venv/made-from 2>/dev/null || true; }
ready() { test "$(made_from)" = "$wanted" && .venv/bin/python -c '' 2>/dev/null; }
if ready; then exit 0; fi

fail() { echo "make: $1" >&2; exit 1; }
version() { "$1" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null; }

# All of PATH is looked through, for a version manager may hide a good Python behind one that does not start.
candidates() {
    if [ -n "${PYTHON:-}" ]; then command -v "$PYTHON" || true; return; fi
    for name in python3.11 python3; do
        (IFS=:; for folder in $PATH; do if [ -x "$folder/$name" ]; then echo "$folder/$name"; fi; done)
    done
}

python= bare= received=
while read -r candidate; do
    [ -n "$candidate" ] || continue
    found=$(version "$candidate" </dev/null) || found="one that does not start"
    if [ "$found" != 3.11 ]; then received="${received:+$received, }$candidate ($found)"; continue; fi
    if "$candidate" -c 'import ensurepip, venv' </dev/null 2>/dev/null; then python=$candidate; break; fi
    bare=${bare:-$candidate}
done <<CANDIDATES
$(candidates)
CANDIDATES
remedy="or name another one: make PYTHON=/path/to/python3.11"
if [ -z "$python" ] && [ -n "$bare" ]; then
    fail "received $bare without the modules venv and ensurepip; expected both; install them (Debian, Ubuntu: python3.11-venv) $remedy"
elif [ -z "$python" ]; then
    fail "received ${received:-no ${PYTHON:-python3}}; expected Python 3.11; install it $remedy"
fi

# The kernel drops this lock when the last process that holds it ends, however it ends. It sits on the open file,
# so it outlives the Python that takes it, and a pip orphaned by a killed make keeps it.
exec 9<>requirements.lock
take() { "$python" -c "import fcntl; fcntl.flock(9, fcntl.LOCK_EX$1)" 2>/dev/null; }
take ' | fcntl.LOCK_NB' || { echo "Waiting for another make that sets up .venv."; take '' || true; }
if ready; then exit 0; fi

install() {
    PIP_DISABLE_PIP_VERSION_CHECK=1 .venv/bin/python -m pip install --no-input "$@" >>.venv/set-up.log 2>&1
}
give_up() {
    grep -i error .venv/set-up.log | tail -n 3 >&2
    fail "received the above from pip; expected $1; all of it is in .venv/set-up.log; mend the cause and run make again"
}

# While made-from is missing, set-up is under way. Found missing, it was interrupted, and all starts again: pip takes
# a half-written package for an installed one.
before=$(made_from)
rm -f .venv/made-from
case "$before" in
    "$packages "*) .venv/bin/python -c '' 2>/dev/null || before= ;;
    *) before= ;;
esac
if [ -z "$before" ]; then
    echo "Installing the locked packages into .venv, once: about two minutes and 2.6 GB of disk."
    "$python" -m venv --clear .venv
    # The lock is whole. Left to look for more, pip meets `sqlalchemy[asyncio]`, which no line of it names, and stops.
    install --require-hashes --no-deps --only-binary :all: -r requirements.lock || give_up "all of requirements.lock"
fi
install --no-deps --no-build-isolation --editable . || {
    echo "$packages -" >.venv/made-from
    give_up "this project to install"
}
echo "$wanted" >.venv/made-from
endef
