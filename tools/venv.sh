#!/bin/sh
# Make the virtual environment $VENV with $PYTHON, or say clearly what is missing.
set -eu

need='import sys; sys.exit(sys.version_info < (3, 11))'

if [ ! -x "$VENV/bin/python" ]; then
    if ! command -v "$PYTHON" >/dev/null 2>&1; then
        echo "There is no '$PYTHON' here. Install Python 3.11 or newer, or say where it is: make PYTHON=/path/to/python3" >&2
        exit 1
    fi
    if ! "$PYTHON" -c "$need"; then
        echo "llmkernel needs Python 3.11 or newer, and '$PYTHON' is $("$PYTHON" -V 2>&1). Choose another one: make PYTHON=python3.12" >&2
        exit 1
    fi
    echo "Making $VENV with $("$PYTHON" -V 2>&1) and installing the dependencies; once, a few minutes."
    if ! "$PYTHON" -m venv "$VENV"; then
        rm -rf "$VENV" # half an environment would pass for a whole one next time
        echo "'$PYTHON -m venv' failed. On Debian and Ubuntu: apt install python3-venv. Or use conda: environment.yml." >&2
        exit 1
    fi
fi
if ! "$VENV/bin/python" -c "$need"; then
    echo "$VENV holds $("$VENV/bin/python" -V 2>&1), and llmkernel needs 3.11 or newer. Remove the folder, or choose another one: make VENV=.venv312" >&2
    exit 1
fi
