# Every target sets up what it needs by itself; the stamps make the second start immediate.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
WEIGHTS := weights/.ready

.PHONY: run test bench lint screenshots clean

run: $(VENV)/.run $(WEIGHTS)
	$(BIN)/python app.py $(ARGS)

test: $(VENV)/.dev $(WEIGHTS) chromium
	$(BIN)/python -m pytest -n 2 --dist loadgroup $(ARGS)

bench: $(VENV)/.dev $(WEIGHTS)
	@failed=; for script in benchmarks/[a-z]*.py; do echo "== $$script"; $(BIN)/python $$script || failed="$$failed $$script"; done; \
	if [ -n "$$failed" ]; then echo "did not finish:$$failed" >&2; exit 1; fi

lint: $(VENV)/.dev
	$(BIN)/ruff check .

# the pictures of the documentation, from the real app; ARGS may name some of them
screenshots: $(VENV)/.dev $(WEIGHTS) chromium
	$(BIN)/python -m tools.screenshots $(ARGS)

$(VENV)/bin/python:
	$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or newer is needed, this is " + sys.version) if sys.version_info < (3, 11) else 0'
	$(PYTHON) -m venv $(VENV)

$(VENV)/.run: requirements.txt | $(VENV)/bin/python
	$(BIN)/python -m pip install --disable-pip-version-check -r requirements.txt
	$(BIN)/python -m pip install --disable-pip-version-check --no-deps -e .
	touch $@

$(VENV)/.dev: requirements.txt requirements-dev.txt | $(VENV)/bin/python
	$(BIN)/python -m pip install --disable-pip-version-check -r requirements-dev.txt
	$(BIN)/python -m pip install --disable-pip-version-check --no-deps -e .
	touch $@ $(VENV)/.run

# the official default where the hub can be reached, else the offline one
$(WEIGHTS): | $(VENV)/.run
	$(BIN)/python -m dinodemo.cli weights fetch
	touch $@

.PHONY: chromium
chromium:
	@command -v chromium >/dev/null || { \
	  if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	    apt-get update -qq && apt-get install -y -qq chromium fonts-dejavu-core; \
	  else echo "The browser tests need Chromium: install your system's package 'chromium' and try again." >&2; exit 1; fi; }

clean:
	rm -rf $(VENV) $(WEIGHTS)
