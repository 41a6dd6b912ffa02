#!/usr/bin/env bash
# Train: bash script/train.sh [flags of main.py]. On a machine with several GPUs, one process a GPU.
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
bash "$root/script/setup.sh"
gpus=$({ nvidia-smi --list-gpus 2>/dev/null || true; } | wc -l) # none where there is no nvidia-smi
if [ "$gpus" -gt 1 ]; then
  exec "$root/.venv/bin/torchrun" --standalone --nproc-per-node="$gpus" "$root/main.py" "$@"
fi
exec "$root/.venv/bin/python" "$root/main.py" "$@"
