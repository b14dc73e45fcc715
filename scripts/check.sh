#!/usr/bin/env bash
# Set up .venv if need be and run the tools that read the code: ruff (style, format), mypy (types), pydoclint (docstrings)
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
bash "$root/scripts/setup.sh"
cd "$root"
bin=$root/.venv/bin
"$bin/ruff" check
"$bin/ruff" format --check
"$bin/mypy" selfkd_fairseq
"$bin/pydoclint" --quiet selfkd_fairseq
