#!/usr/bin/env bash
# Make .venv with everything the project needs; a second call does nothing until the requirements change.
set -euo pipefail
cd "$(dirname "$0")/.."
requirements=${1:-requirements.txt}
python=${PYTHON:-python3}
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "error: Python 3.11 or newer is needed; set PYTHON=/path/to/python3" >&2; exit 2; }
[ -x .venv/bin/python ] || "$python" -m venv .venv
stamp() { echo ".venv/installed-$(basename "$1" .txt)"; }
wanted() { cat requirements.txt "$1" constraints.txt | cksum; }
if [ "$(cat "$(stamp "$requirements")" 2>/dev/null)" != "$(wanted "$requirements")" ]; then
  echo "installing $requirements into .venv: several GB, mostly torch; this takes minutes the first time" >&2
  .venv/bin/python -m pip install --quiet --disable-pip-version-check -r "$requirements" -c constraints.txt
  for file in requirements.txt "$requirements"; do wanted "$file" > "$(stamp "$file")"; done # the others contain the first
fi
