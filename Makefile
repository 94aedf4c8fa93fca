# The front door: `make help` lists what it can do. Every path in here is relative, so that the
# project works in a directory of any name.

PG_CONFIG ?= pg_config
PYTHON ?= /usr/bin/python3
export PG_CONFIG PYTHON SERVER_PYTHON DESTDIR

PG_MAJOR = $(or $(shell '$(PG_CONFIG)' --version 2> /dev/null | sed -n 's/^PostgreSQL \([0-9]*\).*/\1/p'),15)
PACKAGES = make python3-venv python3-nacl postgresql-$(PG_MAJOR) postgresql-plpython3-$(PG_MAJOR)
TEST_PACKAGES = postgresql-$(PG_MAJOR)-pgtap libtap-parser-sourcehandler-pgtap-perl pgbouncer git

PIP = .venv/bin/python -m pip -qq --disable-pip-version-check
HERE := $(shell pwd | cksum | cut -d ' ' -f 1)
CLIENT = .venv/.client-$(HERE)
DEV = .venv/.dev-$(HERE)

LAW_WORLDS = $(or $(WORLDS),1000)
LAW_SEED := $(or $(SEED),$(shell od -An -N4 -tu4 /dev/urandom | tr -d ' '))

# The steps of a target follow each other: packages, the client, the server's side.
.NOTPARALLEL:
.PHONY: all help build install uninstall client demo test test-long test-settings chaos replay lint format bench lock \
	release clean packages test-packages

all: build

help: ## this list
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' Makefile | expand -t 16

build: ## put the extension's SQL together in build/
	@scripts/install-extension --build-only

install: ## build, and install the extension for the server that PG_CONFIG names
	@scripts/install-extension

uninstall: ## remove what install has put there
	@$(MAKE) -s -f extension/pgxs.mk uninstall

client: $(CLIENT) ## the client, .venv/bin/kerai

demo: packages $(CLIENT) install ## everything needed, then the main job on the example
	@.venv/bin/kerai demo

test: packages test-packages $(DEV) install lint ## everything needed, then all checks and tests
	@.venv/bin/python -m pytest --numprocesses auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder --durations=15

test-long: packages test-packages $(DEV) install ## the laws in many worlds, new ones at every run: WORLDS=1000 SEED=1
	@echo 'seed $(LAW_SEED): make test-long WORLDS=$(LAW_WORLDS) SEED=$(LAW_SEED) repeats this run'
	@KERAI_WORLDS='$(LAW_WORLDS)' .venv/bin/python -m pytest --numprocesses auto --maxprocesses 4 --dist loadfile \
		--no-loadscope-reorder --durations=15 --hypothesis-seed='$(LAW_SEED)' -m 'hypothesis or long'

test-settings: packages test-packages $(DEV) install ## the server tests, on a server with settings that nobody expects
	@KERAI_TEST_SETTINGS=odd .venv/bin/python -m pytest --numprocesses auto --maxprocesses 4 --dist loadfile \
		tests/test_pgtap.py tests/merge tests/concurrency tests/instances tests/restore tests/swarm tests/settings

chaos: packages $(DEV) install ## pushes, rebuilds, dumps, cancels and kills at once: SECONDS=600 SEED=1
	@.venv/bin/python -m tests.chaos $(if $(SECONDS),--seconds $(SECONDS)) $(if $(SEED),--seed $(SEED))

replay: packages $(DEV) install ## merges of a git repository made again by kerai: REPO=/path LIMIT=50 JOBS=2
	@.venv/bin/python -m tests.replay '$(REPO)' $(if $(LIMIT),--limit $(LIMIT)) $(if $(JOBS),--jobs $(JOBS))

bench: packages $(DEV) install ## the benchmarks, a table of ratios
	@.venv/bin/python tests/bench/run.py

lint: $(DEV) build ## the linters alone
	@.venv/bin/python -m ruff check --quiet
	@.venv/bin/python -m ruff format --check --quiet
	@.venv/bin/python -m mypy --no-error-summary
	@.venv/bin/python -m sqlfluff lint --quiet extension/sql client/kerai_client/db/queries
	@.venv/bin/python scripts/spot_holes.py build/kerai--*.sql
	@.venv/bin/python scripts/spot_literals.py build/kerai--*.sql

# Only rules whose fix cannot change what a statement does: blanks and the case of letters.
format: $(DEV) ## lay the sources out as lint wants them
	@.venv/bin/python -m ruff check --fix --quiet
	@.venv/bin/python -m ruff format --quiet
	@.venv/bin/python -m sqlfluff fix --quiet --rules capitalisation,layout extension/sql client/kerai_client/db/queries

release: ## a release commit and its tag, on main: VERSION=1.2.3
	@'$(PYTHON)' scripts/release '$(VERSION)'

clean: ## remove what was built, .venv too
	rm -rf build .venv kerai.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis

packages:
	@scripts/install-packages $(PACKAGES)

test-packages:
	@scripts/install-packages $(TEST_PACKAGES)

# The stamps carry a sum of the directory's name: an environment that was moved is put right again.
$(CLIENT): pyproject.toml requirements/client.txt
	@scripts/install-packages python3-venv
	@'$(PYTHON)' -m venv .venv
	@$(PIP) install --require-hashes --requirement requirements/client.txt
	@$(PIP) install --no-deps --no-build-isolation --editable .
	@touch $@

$(DEV): $(CLIENT) requirements/dev.txt
	@$(PIP) install --require-hashes --requirement requirements/dev.txt
	@touch $@

LOCK = .venv/bin/uv pip compile --quiet --upgrade --universal --python-version 3.11 --generate-hashes --no-header pyproject.toml
lock: $(DEV) ## the newest versions that pyproject.toml allows, in requirements/
	@$(PIP) install uv
	@$(LOCK) --extra build --output-file requirements/client.txt
	@$(LOCK) --extra dev --output-file requirements/dev.txt
