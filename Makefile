# Two commands do everything: `make run` and `make test`. Both make their own virtual environment first.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.DEFAULT_GOAL := help

help: ## list the targets
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  make \1|\2/' | column -t -s '|'

KERNEL := setup.py $(wildcard workers/*/*.[ch] workers/*/kernel_build.py)

$(VENV)/.installed: requirements.txt pyproject.toml $(KERNEL)
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "installing (once)"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.txt
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@ls workers/*/_kernel.*.so >/dev/null 2>&1 || echo "without a C compiler and Python's headers: Python sends the packets"
	@touch $@

$(VENV)/.installed-dev: $(VENV)/.installed requirements-dev.txt
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements-dev.txt
	@touch $@

run: $(VENV)/.installed ## a test pattern at http://127.0.0.1:8080 (SOURCE=film.mp4 for a film)
	@exec $(BIN)/beamcast up $(if $(SOURCE),"$$SOURCE")

lint: $(VENV)/.installed-dev ## ruff, mypy --strict, the import rules
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

system: ## what the tests need from the system: Chromium, Firefox ESR, redis-server, C compilers
	@PYTHON=$(PYTHON) tests/system-packages

test: system $(VENV)/.installed-dev lint ## lint and all tests
	$(BIN)/pytest $(ARGS)

sanitize: $(VENV)/.installed-dev ## the C kernel under AddressSanitizer and UBSan, longer than `make test` does
	SANITIZER_ROUNDS=20000 $(BIN)/pytest --timeout 600 tests/test_native.py tests/test_receive_kernel.py tests/test_estimate.py \
		tests/test_srtp.py tests/test_load_arrivals.py -k sanitizer

SECONDS ?= 3600
fuzz: $(VENV)/.installed-dev ## the readers of what viewers send, fuzzed for SECONDS=3600
	FUZZ_SECONDS=$(SECONDS) $(BIN)/pytest tests/test_feedback.py -k fuzzer

bench: $(VENV)/.installed-dev ## benchmarks, side by side, on loopback
	$(BIN)/python -m benchmarks

lock: ## pin the dependencies anew (needs uv)
	uv pip compile -q --universal -p 3.11 --generate-hashes --no-emit-index-url --no-emit-find-links \
		--no-annotate --no-header --upgrade requirements.in -o requirements.txt
	uv pip compile -q --universal -p 3.11 --generate-hashes --no-emit-index-url --no-emit-find-links \
		--no-annotate --no-header --upgrade requirements.in requirements-dev.in -o requirements-dev.txt

clean: ## remove the virtual environment and all caches
	rm -rf $(VENV) build *.egg-info .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis

.PHONY: help run lint system test sanitize fuzz bench lock clean
