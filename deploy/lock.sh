#!/bin/sh
# Writes requirements.lock (the product and what builds its wheel) and requirements-dev.lock (the tests too)
# from pyproject.toml: universal for Python 3.11 and later, with hashes, naming no index.
# `deploy/lock.sh` keeps what is pinned where it still fits; `deploy/lock.sh --upgrade` takes the newest.
set -eu
cd "$(dirname "$0")/.."

python=${PYTHON:-python3}
uv=${UV:-uv}
command -v "$uv" >/dev/null || { echo "lock.sh: uv is needed (a package of the same name); set UV to its path" >&2; exit 1; }

requires=$("$python" -c '
import tomllib
print("\n".join(tomllib.load(open("pyproject.toml", "rb"))["build-system"]["requires"]))')

compile() {
    output=$1
    shift
    printf '%s\n' "$requires" | "$uv" pip compile --quiet --universal --python-version 3.11 --generate-hashes \
        --no-emit-index-url --no-emit-find-links --no-header --no-annotate "$@" pyproject.toml - -o "$output"
}

compile requirements.lock "$@"
compile requirements-dev.lock --extra dev --constraint requirements.lock "$@"
