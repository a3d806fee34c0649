# `make run` and `make test` need nothing but Python 3.11 or later; both work from a fresh clone.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Written when an installation is complete, so that a second `make` need not look.
INSTALLED := $(VENV)/installed
INSTALLED_DEV := $(VENV)/installed-dev

# Many tests wait for other processes and for times to pass: twice as many at once as there are cores.
WORKERS ?= $(shell $(PYTHON) -c 'import os; print(2 * (os.cpu_count() or 1))')

# What takes long and is the same with either database is tested with one.
ONCE := $(addprefix --ignore=app/,simulator \
    $(addprefix gateway/tests/,test_clock.py test_documents.py test_fuzz_served.py test_imports.py test_schema.py \
    test_security_access.py test_security_production.py test_security_secrets.py test_stop.py) \
    balances/tests/test_sizing.py \
    $(addprefix openai_app/tests/,http sockets test_attack.py test_attack_anywhere.py test_attack_spellings.py \
    test_binary_answers.py test_bounds.py test_catalogue.py test_catalogue_description.py test_circuit.py \
    test_clients_that_leave.py test_content_types.py test_deferred_missing.py test_downloads_of_json.py \
    test_every_older_operation.py test_every_operation.py test_form_fields.py test_forms.py test_fuzz_metering.py \
    test_fuzz_requests.py test_fuzz_streams.py test_ids_by_name.py test_legacy_clients.py \
    test_lessons_free_of_charge.py test_lessons_others_things.py test_lessons_running.py test_lessons_streams.py \
    test_lines.py test_output_cap.py \
    test_parked.py test_paths_and_headers.py test_recorded_endpoints.py test_recorded_traffic.py \
    test_refused_bodies.py test_schema.py test_sdk.py test_security_wire.py test_slow_readers.py test_sse.py \
    test_streams.py test_timeouts.py test_upstream_errors.py test_uploads.py)) \
    $(addprefix --ignore=,$(wildcard app/openai_app/tests/test_counting*.py app/openai_app/tests/test_metering*.py))

.PHONY: help run test check lint security format bench soak fuzz chaos

help:
	@echo 'make run     serve the gateway; see .env.example for what can be set'
	@echo 'make test    the whole test suite, on SQLite and on PostgreSQL if one can be found'
	@echo 'make check   style, types and tests: what must pass before a change is kept'
	@echo 'make lint    style and types only; `make format` repairs style'
	@echo 'make security  flaws in the code (bandit) and known ones of the requirements (pip-audit)'
	@echo 'make bench   the benchmarks'
	@echo 'make soak    half an hour of mixed load, to see that nothing grows'
	@echo 'make fuzz    inputs that nobody would write, a minute for each fuzzer'
	@echo 'make chaos   faults thrown at gateways under load, and the books held together afterwards'

run: $(INSTALLED)
	@exec $(BIN)/python app/manage.py serve --demo

test: $(INSTALLED_DEV)
	$(BIN)/python -m pytest -n $(WORKERS) $(ARGS)
	$(BIN)/python .ci/with_postgresql.py $(BIN)/python -m pytest -n $(WORKERS) $(ONCE) $(ARGS)

check: lint security test

lint: $(INSTALLED_DEV)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

security: $(INSTALLED_DEV)
	$(BIN)/bandit --quiet --configfile pyproject.toml --recursive app
	$(BIN)/python .ci/audit.py

format: $(INSTALLED_DEV)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(INSTALLED_DEV)
	$(BIN)/python bench/run.py $(ARGS)

soak: $(INSTALLED_DEV)
	$(BIN)/python bench/soak.py $(ARGS)

fuzz: $(INSTALLED_DEV)
	$(BIN)/python bench/fuzz/run.py $(ARGS)

chaos: $(INSTALLED_DEV)
	PYTHONPATH=bench $(BIN)/python -m chaos $(ARGS)

$(INSTALLED): requirements.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or later is needed: make PYTHON=/path/to/python3")'
	@echo 'Installing into $(VENV) …'
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.txt
	@touch $@

$(INSTALLED_DEV): requirements-dev.txt $(INSTALLED)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements-dev.txt
	@touch $@
