# Every target sets up what it needs by itself; the stamps make the second start immediate.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
WEIGHTS := weights/.ready

.PHONY: run test bench lint lock audit docs screenshots notebook clean

run: $(VENV)/.run $(WEIGHTS)
	$(BIN)/python app.py $(ARGS)

test: $(VENV)/.dev $(WEIGHTS) chromium
	$(BIN)/python -m pytest -n 2 --dist loadgroup $(ARGS)

bench: $(VENV)/.dev $(WEIGHTS)
	@failed=; for script in benchmarks/[a-z]*.py; do echo "== $$script"; $(BIN)/python $$script || failed="$$failed $$script"; done; \
	if [ -n "$$failed" ]; then echo "did not finish:$$failed" >&2; exit 1; fi

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check --quiet .
	$(BIN)/mypy dinodemo app.py

# what a deployment installs, by version and hash: on a GPU machine the first, elsewhere the second
LOCK := $(BIN)/uv pip compile requirements.txt --no-config --quiet --generate-hashes --python-version 3.11 \
	--python-platform x86_64-manylinux_2_28 --custom-compile-command "make lock" --index-url https://pypi.org/simple
TORCH_CPU ?= --extra-index-url https://download.pytorch.org/whl/cpu --index-strategy unsafe-best-match
lock: | $(VENV)/bin/python
	$(BIN)/python -m pip install --disable-pip-version-check --quiet uv
	$(LOCK) --upgrade -o requirements.lock
	$(LOCK) --upgrade $(TORCH_CPU) -o requirements-cpu.lock

# known weaknesses of what the locks name
audit: | $(VENV)/bin/python
	$(BIN)/python -m pip install --disable-pip-version-check --quiet pip-audit
	$(BIN)/pip-audit --disable-pip --require-hashes --vulnerability-service pypi -r requirements.lock

# the documentation as a site, in site/
docs: $(VENV)/.docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet
	@echo "open site/index.html, or serve it: $(BIN)/mkdocs serve"

# the pictures of the documentation, from the real app; ARGS may name some of them
screenshots: $(VENV)/.dev $(WEIGHTS) chromium
	$(BIN)/python -m tools.screenshots $(ARGS)

# the lecture's notebook, from its script
notebook: $(VENV)/.dev
	$(BIN)/python -m tools.notebook

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

$(VENV)/.docs: requirements-docs.txt | $(VENV)/bin/python
	$(BIN)/python -m pip install --disable-pip-version-check -r requirements-docs.txt
	touch $@

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
	rm -rf $(VENV) $(WEIGHTS) site
