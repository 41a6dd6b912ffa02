#!/usr/bin/env bash
# Everything that must hold: set-up, ruff, mypy, the tests. The slow ones too: bash script/test.sh -m ""
set -euo pipefail
cd "$(dirname "$0")/.."
bash script/setup.sh requirements-dev.txt
.venv/bin/ruff check .
.venv/bin/ruff format --check .
.venv/bin/mypy
.venv/bin/pytest -m "not slow" "$@"
[ -z "${CI:-}" ] || bash script/audit.sh || echo "audit: what was found stands above"
