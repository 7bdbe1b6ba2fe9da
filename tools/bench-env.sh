#!/bin/sh
# Set up .bench: what .venv has, and the rivals of `make bench`, from hashed requirements. After tools/set-up.sh.
#
# lightly and kornia are installed there and nowhere else. solo-learn is not: its releases ask for torchvision 0.10.
set -eu
cd "$(dirname "$0")/.."
export UV_PYTHON_DOWNLOADS=never
rm -f .bench/.ready
if ! .bench/bin/python -c '' >/dev/null 2>&1; then
    rm -rf .bench
    .tools/bin/uv venv --quiet --python .venv/bin/python .bench
fi
echo "set-up: the rivals, into .bench"
.tools/bin/uv pip sync --quiet --python .bench/bin/python --require-hashes requirements.txt benchmarks/requirements.txt
.tools/bin/uv pip install --quiet --python .bench/bin/python --no-deps --no-build-isolation --editable .
env -u PYTHONDONTWRITEBYTECODE .bench/bin/python -m compileall -q -j 0 .bench/lib >/dev/null 2>&1 || true
touch .bench/.ready
