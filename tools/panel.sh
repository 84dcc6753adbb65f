#!/bin/sh
# Types, tests and bundle of the chat panel's front end.
#
#   sh tools/panel.sh            checks it and writes llmkernel/notebook/panel/static/panel.js
#   sh tools/panel.sh --check    checks it, and that the file is what the sources make
set -eu
cd "$(dirname "$0")/../panel-js"
bundle=../llmkernel/notebook/panel/static/panel.js

if ! command -v npm > /dev/null; then
    echo "npm is missing: apt-get install nodejs npm (Node 20 or newer)" >&2
    exit 1
fi
version=$(node --version 2> /dev/null || echo none)
major=${version#v}
major=${major%%.*}
if ! [ "$major" -ge 20 ] 2> /dev/null; then
    echo "Node 20 or newer is needed, and here is $version: https://nodejs.org, or a newer Debian" >&2
    exit 1
fi
if [ ! -e node_modules/.package-lock.json ] || [ package-lock.json -nt node_modules/.package-lock.json ]; then
    npm ci --silent --no-audit --no-fund
fi
npm run --silent check
npm run --silent test -- --silent
if [ "${1:-}" = --check ]; then
    made=$(mktemp)
    trap 'rm -f "$made"' EXIT
    node build.mjs "$made"
    if ! cmp -s "$made" "$bundle"; then
        echo "$bundle is not what panel-js makes. Run: make panel" >&2
        exit 1
    fi
else
    node build.mjs
fi
