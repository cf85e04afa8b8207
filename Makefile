# Each target makes its own virtual environment and installs what it needs, system packages included.
# Where it needs root and is not, it says so and uses sudo.

.PHONY: help venv demo test torture lint docs bench wheels clean

PYTEST_ARGS ?= -n auto --dist worksteal
DRIVER ?= overlay2
BENCH_ARGS ?=

# Tests start hundreds of Pythons, each of which would compile the library anew.
unexport PYTHONDONTWRITEBYTECODE

help:
	@echo 'make demo     builds images of real Debian packages, and shows what layers are (DRIVER=btrfs: with that driver)'
	@echo 'make test     runs the tests (PYTEST_ARGS="tests/core -k mount" chooses some)'
	@echo 'make torture  the tests by night: many more examples, every point of failure, every fault of the list; hours.'
	@echo '              Interrupted, it goes on where it was; TORTURE_ARGS="--every 20" tries a part of the points,'
	@echo '              "--only lazily" what has that in its name'
	@echo 'make lint     ruff, clang-format, mypy, import-linter'
	@echo 'make docs     the reference of all public names, as pages in build/api'
	@echo 'make bench    measures all against the peers, and writes a page (BENCH_ARGS: see benchmarks/README.md)'
	@echo 'make wheels   what is published, in dist/: wheels for glibc and musl, tried in a fresh environment'
	@echo 'make venv     only the virtual environment, with the extension built'
	@echo 'make clean    removes what these made'

venv:
	@tools/prepare build

demo:
	@tools/prepare demo
	@.venv/bin/python -m demo.packages
	@tools/as-root 'The demo mounts filesystems' unshare --mount env PYTHONPATH=tests .venv/bin/python -m demo $(DRIVER)

test:
	@tools/prepare test
	@tools/as-root 'The tests mount filesystems' .venv/bin/python -m pytest $(PYTEST_ARGS)

torture:
	@tools/prepare night
	@tools/as-root 'The tests mount filesystems' env PYTHONPATH=tests .venv/bin/python -m torture.night $(TORTURE_ARGS)
	@tools/as-root 'The tests mount filesystems' env PYTHONPATH=tests .venv/bin/python -m fuzz.night
	@tools/as-root 'The tests mount filesystems' env HYPOTHESIS_PROFILE=nightly .venv/bin/python -m pytest $(PYTEST_ARGS)

lint:
	@tools/prepare lint
	.venv/bin/python -m ruff check
	.venv/bin/python -m ruff format --check
	find src benchmarks tests -name '*.[ch]' ! -name _shim.c ! -path '*/corpus/*' -exec .venv/bin/clang-format --dry-run --Werror {} +
	.venv/bin/python -m mypy
	.venv/bin/lint-imports --no-cache
	.venv/bin/python tools/check-house

docs:
	@tools/prepare docs
	.venv/bin/python -m tools.api_docs

bench:
	@tools/prepare bench
	@tools/as-root 'The benchmarks mount filesystems' .venv/bin/python -m benchmarks.peers $(BENCH_ARGS)

wheels:
	@tools/wheels

clean:
	rm -rf .venv .prepare.lock build dist .pytest_cache .hypothesis .mypy_cache .ruff_cache .import_linter_cache
	rm -f src/layerstore/kernel/_shim*.so src/layerstore/kernel/_shim.c
	rm -rf src/*.egg-info
	find src drivers tests demo benchmarks -name __pycache__ -prune -exec rm -rf {} +
