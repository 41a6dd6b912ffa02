#!/usr/bin/env bash
# Predict: bash script/inference.sh [flags of inference.py]. One process per GPU that torch sees, one on a CPU.
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
bash "$root/script/setup.sh"
PYTHONPATH="$root" exec "$root/.venv/bin/python" -m src.engine.launch "$root/inference.py" "$@"
