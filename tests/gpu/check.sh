#!/usr/bin/env bash
# kdray on a bare machine: PyTorch, no network, no Ray. Runs tests/gpu, then measures a teacher's pass, training steps and
# serving on the GPU, or on the processor where there is none, and prints a table. Takes less than 8 minutes.
#
#   tests/gpu/check.sh [--seconds 15]
#
# Beside this file lies bundle.tar.xz with all else that kdray needs (bundle.sh packs it for a version of Python); without
# it, the packages of the machine are taken. PYTHON is the interpreter with PyTorch (default python3).
set -euo pipefail
cd "$(dirname "$0")/../.."
python=${PYTHON:-python3}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir "$work/site"
if [ -f tests/gpu/bundle.tar.xz ]; then
  "$python" -m tarfile -e tests/gpu/bundle.tar.xz "$work/site"
  # The machine's numpy goes with its torch.
  if "$python" -c 'import numpy' 2> /dev/null; then rm -rf "$work"/site/numpy*; fi
fi
export PYTHONPATH="$PWD:$work/site" HF_HUB_OFFLINE=1 TOKENIZERS_PARALLELISM=false
"$python" -c 'import torch; raise SystemExit(not torch.cuda.is_available())' || export KDRAY_GPU_TESTS=cpu

tests=$(timeout 180 "$python" -m pytest -c /dev/null --rootdir . -q -p no:cacheprovider -W ignore tests/gpu 2>&1 \
  | tee /dev/stderr | tail -1) || true
timeout 280 "$python" tests/gpu/check.py --tests "$tests" "$@"
case $tests in *failed* | *error*) exit 1 ;; esac
