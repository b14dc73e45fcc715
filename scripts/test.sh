#!/usr/bin/env bash
# Set up .venv if need be and run the tests: bash scripts/test.sh [--coverage | pytest arguments]
# Without arguments, all of them on all cores. --coverage: the same, slower, and the share of the package's
# lines that they run; less than 90 % is a failure.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
bash "$root/scripts/setup.sh"
cd "$root"
# A file's tests stay in one process, for they share what it trained. The files in their own order: those of most tests
# first, as is xdist's way, would leave the longest few for the end.
all=(-n auto --maxprocesses 8 --dist loadfile --no-loadscope-reorder)
case "$*" in
    '') set -- "${all[@]}" ;;
    --coverage) set -- --cov --cov-report=term "${all[@]}" ;;
esac
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}" # the models are tiny: more threads only wait for one another
exec "$root/.venv/bin/python" -m pytest "$@"
