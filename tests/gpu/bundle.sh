#!/usr/bin/env bash
# Packs what kdray needs beside PyTorch, pinned as in cluster/constraints.txt, into tests/gpu/bundle.tar.xz: what check.sh
# takes to a machine that has PyTorch and no network. Without Ray, and without what the checks never import.
#
#   tests/gpu/bundle.sh [PYTHON [PACKAGE ...]]
#
# PYTHON is the version there, such as 3.12 (default: that of python3 here), on x86-64 Linux; PACKAGEs, such as numpy scipy
# pyarrow, are there already and stay out. Needs pip and a network. Prints the MiB; more than 64 are an error.
set -euo pipefail
cd "$(dirname "$0")/../.."
version=${1:-$(python3 -c 'import sys; print("%d.%d" % sys.version_info[:2])')}
there=" ${*:2} "
limit=64
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

wheels=(numpy scipy pyarrow transformers tokenizers safetensors huggingface-hub httpx2 httpcore2 truststore h11 anyio idna
  click typer shellingham rich markdown-it-py mdurl pygments pydantic pydantic-core annotated-types typing-inspection
  typing-extensions annotated-doc regex pyyaml tqdm packaging filelock fsspec jinja2 markupsafe einops hjson msgpack psutil
  py-cpuinfo ninja pytest pluggy iniconfig)
for place in "${!wheels[@]}"; do
  case $there in *" ${wheels[place]} "*) unset "wheels[place]" ;; esac
done
platforms=()
for glibc in 34 31 28 27 24 17; do platforms+=(--platform "manylinux_2_${glibc}_x86_64"); done
pip=(python3 -m pip --disable-pip-version-check)
grep -E "^[A-Za-z0-9._-]+==" cluster/constraints.txt > "$work/pins"
"${pip[@]}" download -q --no-deps --only-binary=:all: --python-version "$version" --implementation cp \
  "${platforms[@]}" --platform manylinux2014_x86_64 -c "$work/pins" -d "$work/wheels" "${wheels[@]}"
DS_BUILD_OPS=0 "${pip[@]}" wheel -q --no-deps -c "$work/pins" -w "$work/wheels" deepspeed
for wheel in "$work"/wheels/*.whl; do python3 -m zipfile -e "$wheel" "$work/site"; done

cd "$work/site"
find . -type d \( -name tests -o -name include \) -prune -exec rm -rf {} +
rm -rf pyarrow/src pyarrow/*flight* pyarrow/*gandiva* pyarrow/*cuda*
rm -rf scipy/{stats,signal,ndimage,io,integrate,interpolate,cluster,fftpack,datasets,differentiate,odr,misc}
cd - > /dev/null
XZ_OPT=-9 tar -C "$work/site" -cJf tests/gpu/bundle.tar.xz .
size=$(stat -c %s tests/gpu/bundle.tar.xz)
echo "tests/gpu/bundle.tar.xz: $(awk "BEGIN {printf \"%.1f\", $size / 2^20}") MiB for Python $version"
[ "$size" -le $((limit << 20)) ] || { echo "more than $limit MiB" >&2; exit 1; }
