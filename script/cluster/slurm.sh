#!/usr/bin/env bash
# A scheduler, a worker per GPU, and src.cohort in one job of Slurm, from the checkout:
#   sbatch --ntasks=16 script/cluster/slurm.sh --slides slides.txt --out out -- --ckpt best.pt
# The same command goes on where a job was stopped, by its time limit for example.
#SBATCH --job-name=cohort
#SBATCH --ntasks=4
#SBATCH --gpus-per-task=1
#SBATCH --cpus-per-task=8
#SBATCH --mem-per-cpu=4G
#SBATCH --time=24:00:00
set -euo pipefail
cd "${SLURM_SUBMIT_DIR:?start this with sbatch}"
source script/cluster/tls.sh .cohort-tls
ulimit -n "$(ulimit -Hn)" # the scheduler keeps connections to all workers open
python=$PWD/.venv/bin/python
address=tls://$(hostname):$((20000 + SLURM_JOB_ID % 10000))
quiet=(--no-dashboard --dashboard-address 127.0.0.1:0)

"$python" -m dask scheduler --protocol tls --host "$(hostname)" --port "${address##*:}" "${quiet[@]}" &
scheduler=$!
# Each task of the job has a host of its own to listen on, so $(hostname) is left to it.
srun bash -c 'exec "$0" -m dask worker "$1" --host "$(hostname)" --nthreads 1 --resources GPU=1 "${@:2}"' \
  "$python" "$address" "${quiet[@]}" &
workers=$!
trap 'kill $workers $scheduler 2>/dev/null || true' EXIT
"$python" -m src.cohort --scheduler "$address" --gpus-per-task 1 "$@"
