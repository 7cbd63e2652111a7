# Needs Python 3.10 to 3.13, make and a package index. The lock pins everything else.
#   make demo PYTHON=python3.12               another Python
#   make venv LOCK=requirements-gpu.lock      the same versions plus CUDA's libraries
PYTHON ?= python3
LOCK ?= requirements.lock
VENV := .venv
PY := $(VENV)/bin/python
STAMP := $(VENV)/$(LOCK).installed
DEMO ?= demo

unexport PYTHONDONTWRITEBYTECODE  # else each of the tests' processes compiles all modules again

.DEFAULT_GOAL := help
.PHONY: help venv demo node-demo test test-all lint lock newest wheels clean

help:  ## print this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-8s %s\n", $$1, $$2}' Makefile

venv: $(STAMP)  ## install the locked packages into .venv

# The stamp is written last. An environment without it is incomplete and made again; after an
# interrupted update it is older than the lock, and the update is repeated.
$(STAMP): $(LOCK) setup.py
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; (3, 10) <= v <= (3, 13) or sys.exit( \
	  "error: expected Python 3.10 to 3.13, $(PYTHON) is %d.%d; choose another: make PYTHON=..." % v)'
	@test -e $@ || $(PYTHON) -m venv --clear $(VENV)
	@echo "Installing $(LOCK) into $(VENV) (a few minutes the first time) ..."
	@$(PY) -m pip install --quiet --disable-pip-version-check --use-pep517 --require-hashes \
	  -r $(LOCK)
	@$(PY) -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

demo: $(STAMP)  ## phantoms, data job, training, prediction and scores, all under demo/
	@echo "[1/6] Make phantom patients"
	$(PY) -m segthor.phantom --output=$(DEMO)/patients --patients=24 --test_patients=4 \
	  --size=small --seed=0
	@echo "[2/6] Build the dataset"
	$(PY) -m beam_jobs.build --input=$(DEMO)/patients --output=$(DEMO)/dataset \
	  --flagfile=configs/demo_build.flags
	@echo "[3/6] Train"
	$(PY) -m trainer.main --flagfile=configs/smoke.flags --data=$(DEMO)/dataset \
	  --workdir=$(DEMO)/run
	@echo "[4/6] Export the model"
	$(PY) -m serving.export --workdir=$(DEMO)/run --output=$(DEMO)/model
	@echo "[5/6] Predict the held-out patients"
	$(PY) -m serving.predict --model=$(DEMO)/model --input=$(DEMO)/patients/test \
	  --output=$(DEMO)/predictions
	@echo "[6/6] Score the predictions"
	$(PY) -m serving.evaluate --predictions=$(DEMO)/predictions \
	  --labels=$(DEMO)/patients/test_labels --scans=$(DEMO)/patients/test \
	  --output=$(DEMO)/evaluation
	@echo
	@echo "Done. Everything lies in $(DEMO)/:"
	@echo "  patients/      phantom CT and contours       dataset/     TFRecord shards, dataset.json"
	@echo "  run/           checkpoints, TensorBoard      model/       the SavedModel"
	@echo "  predictions/   label maps of held-out CT     evaluation/  scores"
	@echo "The picture, predicted and true contours on CT: $(DEMO)/evaluation/overlay.png"
	@echo "Watch the training:  $(VENV)/bin/tensorboard --logdir=$(DEMO)/run"

node-demo: $(STAMP)  ## send a phantom through an Orthanc and the node, with the demo's model
	$(PY) scripts/node_demo.py $(DEMO)/model $(DEMO)/node

# Three files at a time for two cores, since many tests wait for programs; those that take longest
# first (tests/conftest.py). The tests of a file share fixtures. Most of the fuzzing and all but one
# of the networks run in test-all only, since there are many.
TESTS := $(PY) -m pytest --numprocesses=3 --dist=loadfile --no-loadscope-reorder

test: $(STAMP)  ## run the tests
	$(TESTS)

test-all: $(STAMP)  ## run the tests, all fuzzing and every network (an hour)
	$(TESTS) -m ""

lint: $(STAMP)  ## check style and the import walls
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m pip check  # a package in setup.py that the lock does not hold
	$(PY) -m pytest tests/test_walls.py

# uv resolves for Python 3.10 to 3.13 and every platform at once.
COMPILE = build/lock/bin/uv pip compile --quiet --universal --python-version 3.10 \
  --generate-hashes --custom-compile-command "make lock" --extra test

lock:  ## choose new versions: rewrite requirements.lock and requirements-gpu.lock
	$(PYTHON) -m venv build/lock
	build/lock/bin/python -m pip install --quiet uv
	$(COMPILE) --upgrade -o requirements.lock setup.py
	$(COMPILE) --extra gpu -c requirements.lock -o requirements-gpu.lock setup.py

# Shows what the newest versions that setup.py allows would break, with tests of each program.
NEWEST := build/newest/bin/python
newest:  ## try the newest versions of all dependencies on a short set of tests
	$(PYTHON) -m venv --clear build/newest
	$(NEWEST) -m pip install --quiet --disable-pip-version-check -e .[test]
	@echo "Versions that differ from the lock:"
	$(NEWEST) scripts/compare_versions.py $(LOCK)
	$(NEWEST) -m pip check
	$(NEWEST) -m pytest tests/test_demo.py tests/test_build.py tests/test_model.py \
	  tests/test_predict.py tests/test_dicom_series.py tests/test_structures_write.py

WHEELS = build/lock/bin/uv pip install --quiet --dry-run --no-deps --only-binary :all: \
	--target build/none -r requirements.lock
wheels:  ## check that the lock has wheels for Linux on x86-64 and aarch64 and macOS on arm64
	$(PYTHON) -m venv build/lock
	build/lock/bin/python -m pip install --quiet uv
	for platform in x86_64-manylinux_2_28 aarch64-manylinux_2_35 aarch64-apple-darwin; do \
	  for version in 3.10 3.13; do \
	    $(WHEELS) --python-platform $$platform --python-version $$version || exit 1; \
	  done; done

clean:  ## remove demo/ and caches; .venv stays
	rm -rf $(DEMO) build dist *.egg-info .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -not -path './$(VENV)/*' -prune -exec rm -rf {} +
