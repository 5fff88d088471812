# Every target makes .venv and installs what it needs by itself, without root. PYTHON=... names another Python.

JOBS ?= $(shell n=$$(nproc 2>/dev/null || echo 2); [ $$n -gt 4 ] && echo 4 || echo $$n)
NEEDS := pyproject.toml setup.py constraints/dev.txt .ci/environment

.PHONY: demo test check clean

demo: .venv/ready-demo  ## Ask the embedded model a question about the bundled video.
	.venv/bin/keyeloop demo

test: .venv/ready-dev  ## All tests that this machine can run; those of gVisor, minutes long, by `.ci/docker --gvisor`.
	.venv/bin/python -m pytest -n $(JOBS) --dist loadfile -m "not packaging and not gvisor"

check: .venv/ready-dev  ## Style and types.
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy

clean:
	rm -rf .venv build dist src/keyeloop.egg-info

.venv/ready-demo: $(NEEDS)
	bash .ci/environment demo
	@touch $@

.venv/ready-dev: $(NEEDS)
	bash .ci/environment dev
	@touch $@ .venv/ready-demo
