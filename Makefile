# On a machine that has only Python (3.10 or newer) and make, `make demo` and `make test` do all:
# they create .venv, install what they need, and run. A second run installs nothing.
# Another interpreter beside it: make test PYTHON=python3.12 VENV=.venv312

PYTHON ?= python3
VENV := .venv
# Options of the demo: make demo DEMO="--fresh --seed 1".
DEMO ?=
# Processes that share the test suite, file by file; each takes up to 3 GB.
JOBS ?= 2

python := $(VENV)/bin/python
pip_install := $(python) -m pip install --disable-pip-version-check --constraint constraints.txt
created := $(VENV)/.created
runtime := $(VENV)/.runtime-installed
development := $(VENV)/.development-installed

.PHONY: demo test lint bench constraints clean help anew

demo: $(runtime) ## learn metres from a camera and an IMU in a quarter of an hour
	$(python) -m benchmarks.demo $(DEMO)

test: lint ## run the linter and the whole test suite
	$(python) -m pytest --numprocesses $(JOBS) --dist loadfile

lint: $(development) ## run the linter and the format check
	$(python) -m ruff check .
	$(python) -m ruff format --check .

bench: $(development) ## measure the parts: errors, and times as ratios
	$(python) -m benchmarks.accuracy
	$(python) -m benchmarks.so3_exp
	$(python) -m benchmarks.inertial
	$(python) -m benchmarks.recording
	$(python) -m benchmarks.fusion
	$(python) -m benchmarks.imu_matching
	$(python) -m benchmarks.synthetic
	$(python) -m benchmarks.lidar
	$(python) -m benchmarks.data_loading
	$(python) -m benchmarks.train_step
	$(python) -m benchmarks.evaluation

constraints: $(development) ## choose the newest versions anew and write constraints.txt
	$(python) -m pip install --disable-pip-version-check --quiet uv
	$(python) -m uv pip compile --universal --python-version 3.10 --upgrade --prerelease disallow \
	--no-annotate --quiet --custom-compile-command "make constraints" \
	--output-file constraints.txt requirements-dev.txt

clean: ## remove the virtual environment and the caches
	rm -rf $(VENV) .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -prune -exec rm -rf {} +

help: ## print this list
	@echo "Commands:"
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/  make \1: \2/p' Makefile

# The stamp stands for a complete environment. One whose creation was interrupted, or whose Python
# has gone since (an upgrade of the system), is made anew.
$(created): $(shell $(python) -c pass > /dev/null 2>&1 || echo anew)
	@$(PYTHON) -c 'import sys; \
	sys.exit("make: Python 3.10 or newer is needed, $(PYTHON) is " + sys.version.split()[0] \
	+ ". Name another: make PYTHON=python3.12") if sys.version_info < (3, 10) else None'
	@$(PYTHON) -m venv --clear $(VENV) || { echo "make: $(PYTHON) could not make $(VENV). \
	Where its venv module is missing, on Debian and Ubuntu: apt install python3-venv"; exit 1; }
	@touch $@

$(runtime): requirements.txt constraints.txt $(created)
	$(pip_install) --requirement requirements.txt
	@touch $@

$(development): requirements-dev.txt requirements-onnx.txt $(runtime)
	$(pip_install) --requirement requirements-dev.txt
	@touch $@
