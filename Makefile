# Everything a developer or a CI needs; `make` lists it. Needs Python 3.11 and the package registry.

PYTHON ?= python3
VENV   := .venv
PY     := $(VENV)/bin/python

CODE   := $(shell find src tests tools benchmarks examples models -name '*.py' 2>/dev/null | cut -d/ -f1 | sort -u) hatch_build.py
PROTOS := $(shell find protos -name '*.proto' | sort)
# Only these get gRPC stubs: protoc would write an empty module for each of the others.
SERVICES := $(shell grep -l '^service ' $(PROTOS) /dev/null)

# The locks are complete (--no-deps), their files are checked (--require-hashes), and no setup.py of
# a source distribution ever runs (--only-binary).
PIP_INSTALL := $(PY) -m pip install --quiet --no-input --disable-pip-version-check --no-deps
LOCKED      := $(PIP_INSTALL) --require-hashes --only-binary :all:

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
# `check` runs its steps in the order written: the fastest to fail first, the tests last.
.NOTPARALLEL:

##@ Use

.PHONY: help
help: ## list the targets
	@awk 'BEGIN {FS = ":.*## "} /^##@/ {printf "\n%s\n", substr($$0, 5)} \
	  /^[a-z-]+:.*## / {printf "  %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: run
run: $(VENV)/.run ## serve on 127.0.0.1:50051, on an embedded PostgreSQL or on LICET_DATABASE_URL
	@exec $(VENV)/bin/licet serve

.PHONY: example
example: $(VENV)/.run ## load the example fleet into a server of its own and replay a day of decisions
	@exec $(PY) -m examples.fleet

##@ Check

.PHONY: test
test: $(VENV)/.dev ## run the tests; T=tests/unit/test_pattern.py::test_x narrows
	@$(PY) -m pytest $(T)

.PHONY: chaos
chaos: $(VENV)/.dev ## ten minutes of faults under load, the audit log after crashes, and workers without a safeguard
	@$(PY) -m pytest tests/chaos/check_planted.py
	@$(PY) -m tests.chaos.run --minutes=10 --calls=200000 --workers=3
	@$(PY) -m tests.chaos.audit --events=100000

.PHONY: tamper-matrix
tamper-matrix: $(VENV)/.dev ## do each attack on an audit log, and print by what it is found, and when
	@$(PY) -m tests.integration.tamper_matrix

.PHONY: check
check: format-check lint layers squawk buf protos-check types model-quick bench-gate test test-compiled ## what CI runs: every check, then the tests

.PHONY: format-check
format-check: $(VENV)/.dev ## check the formatting of the Python code
	@$(PY) -m ruff format --check --quiet $(CODE) \
	  || { echo 'format-check: run `make format`' >&2; exit 1; }

.PHONY: lint
lint: $(VENV)/.dev ## lint the Python code
	@$(PY) -m ruff check --quiet $(CODE)

.PHONY: layers
layers: $(VENV)/.dev ## check who imports whom
	@$(VENV)/bin/lint-imports --no-cache --no-logo

.PHONY: types
types: $(VENV)/.dev ## check the types, and that SQL is only ever a literal
	@$(PY) -m mypy $(CODE)
	@$(PY) -m basedpyright

.PHONY: squawk
squawk: $(VENV)/.dev ## lint the migrations: locks, timeouts, repeatability
	@$(VENV)/bin/squawk $(filter-out %.rollback.sql,$(sort $(wildcard migrations/*.sql)))

.PHONY: buf
buf: $(VENV)/.dev ## lint the protos and check their formatting
	@$(VENV)/bin/buf lint
	@$(VENV)/bin/buf format --diff --exit-code

.PHONY: breaking
breaking: $(VENV)/.dev ## check that the protos still serve the clients of AGAINST (default: main)
	@$(VENV)/bin/buf breaking --against '.git#branch=$(or $(AGAINST),main)'

.PHONY: protos-check
protos-check: $(VENV)/.dev ## check that the generated stubs are those of the protos
	@fresh=$$(mktemp -d) && trap 'rm -rf "$$fresh"' EXIT && $(call generate,"$$fresh") \
	  && diff -rq -x __init__.py -x __pycache__ src/licet/v1 "$$fresh/licet/v1" \
	  || { echo 'protos-check: run `make protos` and commit what it writes' >&2; exit 1; }

.PHONY: model
model: $(VENV)/.dev ## check the models of the replica protocol, every safeguard removed in turn: 20 minutes, several GB
	@$(PY) -m models.run --json build/models.json

# The hot path in C: what `make bench` measures, and what is tested once more. In a folder of its own, so
# that whoever edits src/ runs what was edited.
COMPILED := $(CURDIR)/build/compiled
COMPILED_TESTS := tests/unit tests/properties/test_encoding_laws.py tests/properties/test_policy_laws.py \
	$(addprefix tests/faults/test_,$(addsuffix .py,hybrid hybrid_bunches hybrid_ends hybrid_threads)) \
	$(addprefix tests/integration/test_,$(addsuffix .py,api_adversarial api_authorize api_batches_and_streams \
	api_conditions api_delegation api_fuzz api_grant api_key_creation api_keys api_policies api_revoke \
	approval_resolutions approvals limits request_limits spool_log strangers tracing))
can_compile = command -v gcc >/dev/null \
	  && test -f "$$($(PY) -c 'import sysconfig; print(sysconfig.get_path("include"))')/Python.h"
.PHONY: compiled
compiled: $(COMPILED)/.made ## compile the hot path as in a wheel, into build/compiled: a minute, and a C compiler

$(COMPILED)/.made: $(VENV)/.dev pyproject.toml hatch_build.py $(shell find src/licet migrations -name '*.py' -o -name '*.sql')
	@$(can_compile) || { echo 'compiled: needs gcc, and the headers of Python' >&2; exit 1; }
	@mkdir -p build && rm -rf build/wheel $(COMPILED)
	@HATCH_BUILD_HOOK_ENABLE_CUSTOM=1 $(VENV)/bin/hatchling build --target wheel --directory build/wheel >build/compiled.log 2>&1 \
	  || { tail -n 20 build/compiled.log >&2; exit 1; }
	@$(PIP_INSTALL) --no-index --target $(COMPILED) build/wheel/*.whl
	@touch $@

# Not every machine has a C compiler; LICET_REQUIRE_COMPILED=1 makes that an error.
.PHONY: test-compiled
test-compiled: $(VENV)/.dev ## run the tests of decisions once more, with the hot path compiled, where that can be done
	@if [ "$$LICET_REQUIRE_COMPILED" = 1 ] || $(can_compile); \
	then $(MAKE) --no-print-directory compiled \
	  && LICET_TEST_COMPILED=1 PYTHONPATH=$(COMPILED) $(PY) -m pytest $(or $(T),$(COMPILED_TESTS)); \
	else echo 'test-compiled: left out, because gcc or the headers of Python are not installed'; fi

# Not every machine has Spin; LICET_REQUIRE_MODEL=1 makes that an error.
.PHONY: model-quick
model-quick: $(VENV)/.dev ## check a few of them, in seconds, if spin and gcc are installed
	@if command -v spin >/dev/null && command -v gcc >/dev/null || [ "$$LICET_REQUIRE_MODEL" = 1 ]; \
	then $(PY) -m models.run --quick; \
	else echo 'model-quick: left out, because spin or gcc is not installed'; fi

##@ Change

.PHONY: format
format: $(VENV)/.dev ## format the Python code and the protos, and fix what lint can fix
	@$(PY) -m ruff check --fix-only --quiet $(CODE)
	@$(PY) -m ruff format --quiet $(CODE)
	@$(VENV)/bin/buf format --write

.PHONY: protos
protos: $(VENV)/.dev ## generate src/licet/v1 from protos/
	@rm -f src/licet/v1/*_pb2*
	@$(call generate,src)

define generate
$(PY) -m grpc_tools.protoc -I protos \
	  --plugin=protoc-gen-mypy=$(VENV)/bin/protoc-gen-mypy \
	  --python_out=$(1) --mypy_out=quiet:$(1) $(PROTOS) \
	&& $(PY) -m grpc_tools.protoc -I protos \
	  --plugin=protoc-gen-mypy_grpc=$(VENV)/bin/protoc-gen-mypy_grpc \
	  --grpc_python_out=$(1) --mypy_grpc_out=quiet,only_sync:$(1) $(SERVICES)
endef

# Each lock is compiled with the former ones as constraints, so the same package has one version.
COMPILE := $(VENV)/bin/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
	--custom-compile-command 'make lock' $(if $(UPGRADE),--upgrade)

.PHONY: lock
lock: $(VENV)/.dev ## recompile requirements/*.txt from pyproject.toml; UPGRADE=1 takes new versions
	@$(COMPILE) pyproject.toml -o requirements/run.txt
	@$(COMPILE) --group build -c requirements/run.txt -o requirements/build.txt
	@$(COMPILE) pyproject.toml --extra tracing -c requirements/run.txt -o requirements/tracing.txt
	@$(COMPILE) pyproject.toml --extra tracing --group dev -c requirements/tracing.txt \
	  -c requirements/build.txt -o requirements/dev.txt

##@ Measure and ship

.PHONY: bench-quick
bench-quick: compiled ## measure the figures that matter, as ratios, in two minutes; SECTIONS="calls latency" narrows
	@PYTHONPATH=$(COMPILED) $(PY) -m benchmarks.run --effort quick $(SECTIONS)

.PHONY: bench
bench: compiled ## measure everything in docs/benchmarks.md, in half an hour; SECTIONS as above
	@PYTHONPATH=$(COMPILED) $(PY) -m benchmarks.run --effort full $(SECTIONS)

.PHONY: bench-gate
bench-gate: $(VENV)/.dev ## check that a decision costs no more than is on record, in seconds
	@$(PY) -m benchmarks.gate

.PHONY: profile
profile: $(VENV)/.dev ## draw a flame graph of a worker under load, in build/
	@$(PY) -m benchmarks.profile build

.PHONY: bench-audit
bench-audit: $(VENV)/.dev ## measure pages of an audit log alone; EVENTS (default: 1000000)
	@$(PY) -m benchmarks.audit_log $(or $(EVENTS),1000000)

.PHONY: image
image: ## build the container image licet:dev
	@docker build --tag licet:dev .

.PHONY: clean
clean: ## remove the environment and every cache
	rm -rf $(VENV) build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find $(CODE) -name __pycache__ -type d -prune -exec rm -rf {} +

# --- The environment -----------------------------------------------------------------------------

# Enough to serve.
$(VENV)/.run: requirements/build.txt requirements/run.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo 'licet needs Python 3.11 or newer, and $(PYTHON) is not: make PYTHON=/path/to/python3.11' >&2; exit 1; }
	@test -x $(PY) && $(PY) -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv --clear $(VENV) || { \
	  echo 'cannot make $(VENV): on Debian and Ubuntu, install python3-venv' >&2; exit 1; }
	@echo 'installing what licet runs on into $(VENV)' >&2
	@$(LOCKED) -r requirements/build.txt -r requirements/run.txt
	@$(PIP_INSTALL) --no-index --no-build-isolation --editable .
	@touch $@

# Enough to change it.
$(VENV)/.dev: $(VENV)/.run requirements/dev.txt
	@echo 'installing what licet is developed with into $(VENV)' >&2
	@$(LOCKED) -r requirements/dev.txt
	@touch $@
