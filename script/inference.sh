#!/usr/bin/env bash
# Predict: bash script/inference.sh [flags of inference.py]. On a machine with several GPUs, one process a GPU.
set -euo pipefail
cd "$(dirname "$0")/.."
bash script/setup.sh
gpus=$(nvidia-smi --list-gpus 2>/dev/null | wc -l)
if [ "$gpus" -gt 1 ]; then
  exec .venv/bin/torchrun --standalone --nproc-per-node="$gpus" inference.py "$@"
fi
exec .venv/bin/python inference.py "$@"
