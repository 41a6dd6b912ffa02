#!/usr/bin/env bash
# Everything once, on a CPU: install; outline the nuclei of real tissue with the weights that come along; then, on
# synthetic tissue, train from these weights, predict and score. Minutes on 2 cores.
# bash script/demo.sh [FOLDER]: FOLDER (demo) is deleted first if this script made it.
set -euo pipefail
cd "$(dirname "$0")/.."
out=${1:-demo}
weights=weights/he-nuclei.safetensors
if [ -e "$out" ] && [ ! -e "$out/.demo" ]; then
  echo "demo.sh: $out exists and was not made by this script; name another folder or remove it" >&2
  exit 2
fi
bash script/setup.sh
rm -rf "$out"
mkdir -p "$out" && touch "$out/.demo"
.venv/bin/python inference.py --ckpt "$weights" --test-dir weights/example --mpp 0.499 --output "$out/tissue/results.json" \
  --overlay "$out/tissue"
echo "real tissue, its nuclei outlined: $out/tissue/cmu-1.png"
.venv/bin/python -m src.sample --out "$out/data" --images 24 --seed 0
.venv/bin/python main.py --recipe script/recipes/cpu-pretrained.toml --weights "$weights" --augment flips \
  --max-minutes "${MINUTES:-2.5}" --data-path "$out/data/train" --split "$out/data/split.json" --output-dir "$out/run"
.venv/bin/python inference.py --ckpt "$out/run/best.pt" --test-dir "$out/data/test_release" \
  --id-map "$out/data/test_image_name_to_ids.json" --output "$out/test-results.json" --zip "$out/submission.zip" --overlay "$out/pictures"
.venv/bin/python -m src.score --pred "$out/test-results.json" --gt "$out/data/test_gt" \
  --id-map "$out/data/test_image_name_to_ids.json" --json "$out/scores.json"
echo "pictures: $out/tissue and $out/pictures, curves: $out/run/curves.png, submission: $out/submission.zip"
