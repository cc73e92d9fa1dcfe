#!/bin/bash
# sbatch cluster/slurm.sh CONFIG [KEY=VALUE ...], from the repository's root, on a file system that all nodes share.
# Starts Ray on every node of the allocation, runs all stages on the first, and stops Ray. The same line goes on where a
# job was cut off. Options of sbatch, such as --nodes or --gpus-per-node, go before the script's name.
#SBATCH --job-name=kdray
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --exclusive
#SBATCH --time=24:00:00
#SBATCH --requeue
set -euo pipefail

if [ $# -eq 0 ]; then
  echo "usage: sbatch cluster/slurm.sh CONFIG [KEY=VALUE ...]" >&2
  exit 2
fi
first=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | sed -n 1p)
export RAY_AUTH_MODE=token
RAY_AUTH_TOKEN=$(python -c 'import secrets; print(secrets.token_hex(32))')
export RAY_AUTH_TOKEN RAY_SYMMETRIC_RUN_CLUSTER_WAIT_TIMEOUT=300
# An address, not a name: where names are in a file alone, Ray waits for minutes for a name server to say the same.
ip=$(getent ahostsv4 "$first" | awk '$1 !~ /^127\./ {print $1; exit}')
address="${ip:-$(hostname -I | awk '{print $1}')}:$((20000 + SLURM_JOB_ID % 10000))"

# Only the first node runs what follows `--`; the others serve it until it ends. They start when it listens: Ray itself
# gives up after 40 s, which Python on a shared file system may take to start.
srun --nodes="$SLURM_JOB_NUM_NODES" --ntasks-per-node=1 --kill-on-bad-exit=1 bash -c '
  until [ "$SLURM_NODEID" = 0 ] || (: < "/dev/tcp/${0/://}") 2> /dev/null; do sleep 1; done
  exec ray symmetric-run --address "$0" "$@"' \
  "$address" --min-nodes "$SLURM_JOB_NUM_NODES" --num-cpus "$SLURM_CPUS_ON_NODE" \
  -- env RAY_ADDRESS="$address" python jobs/pipeline.py "$@"
