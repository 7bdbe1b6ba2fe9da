#!/bin/sh
# Set up .venv from hashed requirements, with nothing but a Python, its pip and a POSIX shell.
#
# No root and no venv module are needed: uv (put into .tools by pip --target, which Debian's externally
# managed pip allows) makes the environment. Safe to repeat and to interrupt: .venv/.ready is written last.
set -eu
cd "$(dirname "$0")/.."

python=""
for candidate in ${PYTHON:-} python3.14 python3.13 python3.12 python3.11 python3 python; do
    # A name on the PATH may be a shim that does not start, or a Python without pip: ask it.
    if "$candidate" -c 'import sys, pip; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 14))' >/dev/null 2>&1; then
        python="$candidate"
        break
    fi
done
if [ -z "$python" ]; then
    echo "set-up: no Python from 3.11 to 3.14 with pip was found on the PATH." >&2
    echo "        On Debian or Ubuntu: apt-get install python3 python3-pip; or name one: make PYTHON=/path/to/python" >&2
    exit 2
fi

if [ ! -x .venv/bin/python ]; then
    echo "set-up: about 2.8 GB are downloaded (PyTorch with its CUDA libraries), 6.9 GB once installed in .venv."
fi
echo "set-up: using $("$python" -c 'import sys; print(sys.executable, sys.version.split()[0])')"
if [ ! -x .tools/bin/uv ]; then
    "$python" -m pip install --quiet --disable-pip-version-check --target .tools uv
fi

export UV_PYTHON_DOWNLOADS=never
rm -f .venv/.ready
if ! .venv/bin/python -c '' >/dev/null 2>&1; then
    rm -rf .venv
    .tools/bin/uv venv --quiet --python "$("$python" -c 'import sys; print(sys.executable)')" .venv
fi
.tools/bin/uv pip sync --quiet --python .venv/bin/python --require-hashes requirements.txt
.tools/bin/uv pip install --quiet --python .venv/bin/python --no-deps --no-build-isolation --editable .
# Once, here: with PYTHONDONTWRITEBYTECODE set, every start would otherwise compile torch again.
echo "set-up: compiling bytecode once"
env -u PYTHONDONTWRITEBYTECODE .venv/bin/python -m compileall -q -j 0 .venv/lib >/dev/null 2>&1 || true
touch .venv/.ready
echo "set-up: ready"
