#!/usr/bin/env bash
# Score: bash script/evaluate.sh --pred test-results.json --gt FOLDER_OR_COCO_JSON [--id-map FILE] [--json OUT]
set -euo pipefail
cd "$(dirname "$0")/.."
bash script/setup.sh
exec .venv/bin/python -m src.score "$@"
