#!/usr/bin/env bash
# Train: bash script/train.sh [flags of main.py]. On a machine with several GPUs, one process a GPU.
set -euo pipefail
cd "$(dirname "$0")/.."
bash script/setup.sh
gpus=$(nvidia-smi --list-gpus 2>/dev/null | wc -l)
if [ "$gpus" -gt 1 ]; then
  exec .venv/bin/torchrun --standalone --nproc-per-node="$gpus" main.py "$@"
fi
exec .venv/bin/python main.py "$@"
