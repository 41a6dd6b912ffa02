#!/usr/bin/env bash
# Look up known vulnerabilities of all installed packages; exit code 1 where there are any.
set -uo pipefail
cd "$(dirname "$0")/.."
said=$(.venv/bin/pip-audit --skip-editable --progress-spinner off --timeout 15 2>&1)
if grep -q "Found [0-9]* known vulnerabilit" <<< "$said"; then
  printf '%s\n' "$said"
  exit 1
fi
grep -q "No known vulnerabilities found" <<< "$said" && ! grep -q "could not be audited" <<< "$said" \
  && echo "audit: no known vulnerability" \
  || echo "audit: the database of vulnerabilities could not be reached for all packages"
