#!/usr/bin/env bash
# Train: bash script/train.sh [flags of main.py]. One process per GPU that torch sees, one on a CPU.
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
bash "$root/script/setup.sh"
PYTHONPATH="$root" exec "$root/.venv/bin/python" -m src.engine.launch "$root/main.py" "$@"
