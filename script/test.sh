#!/usr/bin/env bash
# Install, then run ruff, mypy and the tests. With the slow ones: bash script/test.sh -m ""
set -euo pipefail
cd "$(dirname "$0")/.."
bash script/setup.sh requirements-dev.txt
.venv/bin/ruff check .
.venv/bin/ruff format --check .
.venv/bin/mypy
.venv/bin/pytest -m "not slow" "$@"
[ -z "${CI:-}" ] || bash script/audit.sh || echo "audit: see the findings above"
