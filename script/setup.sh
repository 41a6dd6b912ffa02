#!/usr/bin/env bash
# Make .venv with everything the project needs; a second call does nothing until the requirements change.
set -euo pipefail
cd "$(dirname "$0")/.."
requirements=${1:-requirements.txt}
python=${PYTHON:-python3}
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "error: Python 3.11 or newer is needed; set PYTHON=/path/to/python3" >&2; exit 2; }
[ -x .venv/bin/python ] || "$python" -m venv .venv
wanted=$(cat requirements.txt "$requirements" constraints.txt | cksum)
stamp=.venv/installed-$(basename "$requirements" .txt)
if [ "$(cat "$stamp" 2>/dev/null)" != "$wanted" ]; then
  .venv/bin/python -m pip install --quiet --disable-pip-version-check -r "$requirements" -c constraints.txt
  echo "$wanted" > "$stamp"
fi
