#!/usr/bin/env bash
# Set up .venv if need be and run the tests: bash scripts/test.sh [pytest arguments]
# Without arguments, all of them, and the share of the package's lines that they run; less than 90 % is a failure.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
bash "$root/scripts/setup.sh"
cd "$root"
if [ $# = 0 ]; then set -- --cov --cov-report=term; fi
exec "$root/.venv/bin/python" -m pytest "$@"
