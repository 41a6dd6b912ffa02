#!/usr/bin/env bash
# Score: bash script/evaluate.sh --pred test-results.json --gt FOLDER_OR_COCO_JSON [--id-map FILE] [--json OUT]
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
bash "$root/script/setup.sh"
PYTHONPATH="$root" exec "$root/.venv/bin/python" -m src.score "$@"
