#!/usr/bin/env bash
# Make and test the environments of docs/compatibility.md: bash scripts/test_environments.sh [NAME ...] [-- pytest arguments]
#   NAME            py38, py310, py311, py312 or py313 (default: all); made in .venv-NAME, with pip at its newest
#   PYTHON_3_8=...  the interpreter of py38, and so on (default: python3.8)
# The logs are .venv-NAME/install.log and test.log. Ends with a table; a Python that is missing is listed there as not
# run. Exit status 1 if an environment could not be made or a test failed. Several GB of downloads: the registry's torch
# brings CUDA.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
all=(py38 py310 py311 py312 py313)

die() { echo "test_environments.sh: $*" >&2; exit 2; }

# find_python VERSION: sets python
find_python() {
    local variable=PYTHON_${1/./_}
    python=${!variable:-python$1}
    [ "$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null)" = "$1" ]
}

# make NAME VENV
make() {
    local pip=("$2/bin/python" -m pip install --disable-pip-version-check --no-input --progress-bar off)
    "$python" -m venv "$2" && "${pip[@]}" --upgrade pip || return
    case $1 in
        py38 | py310) # what fairseq 0.12.2 asks for cannot be installed by a new pip: see the head of the file
            "${pip[@]}" -r "$root/scripts/environments/$1.txt" && "${pip[@]}" --no-deps fairseq==0.12.2
            ;;
        *) PYTHON=$python SETUP_VENV=$2 bash "$root/scripts/setup.sh" ;;
    esac
}

# versions VENV: the cells of the table
versions() {
    "$1/bin/python" - <<'PYTHON'
import platform
from importlib import metadata

installed = {d.metadata["Name"].lower().replace("_", "-"): d.version for d in metadata.distributions()}
fairseq = ", ".join(f"{name} {installed[name]}" for name in sorted(installed) if "fairseq" in name) or "-"
rest = (installed.get(name, "-") for name in ("torch", "numpy", "hydra-core", "omegaconf", "pip"))
print(platform.python_version(), fairseq, *rest, sep=" | ")
PYTHON
}

# test_environment NAME [pytest arguments]: adds a row to the table; fails if the environment or a test does
test_environment() {
    local name=$1 venv=$root/.venv-$1 version=3.${1#py3} status=0 result
    shift
    if ! find_python "$version"; then
        table+=("| $name | $version | | | | | | | not run: $python is missing or not Python $version |")
        return
    fi
    echo "[$name] making $venv with $python"
    mkdir -p "$venv"
    if ! make "$name" "$venv" >"$venv/install.log" 2>&1; then
        tail -n 5 "$venv/install.log" >&2
        table+=("| $name | $version | | | | | | | could not be made: .venv-$name/install.log |")
        return 1
    fi
    "$venv/bin/python" -m pytest "$@" 2>&1 | tee "$venv/test.log" || status=1
    # the last line, without pytest's frame: 9 passed, 1 skipped in 2.34s
    result=$(sed -nE '$s/^=* ?(.* in [0-9.]+s).*/\1/p' "$venv/test.log")
    table+=("| $name | $(versions "$venv") | ${result:-broken off: .venv-$name/test.log} |")
    return $status
}

names=()
while [ $# -gt 0 ] && [ "$1" != -- ]; do
    case " ${all[*]} " in
        *" $1 "*) names+=("$1") ;;
        *) die "no environment is named $1; there are ${all[*]}. Arguments for pytest come after --" ;;
    esac
    shift
done
if [ $# -gt 0 ]; then shift; fi
if [ ${#names[@]} = 0 ]; then names=("${all[@]}"); fi

cd "$root"
failed=0
table=(
    "| environment | Python | fairseq | torch | numpy | hydra | omegaconf | pip | result |"
    "| --- | --- | --- | --- | --- | --- | --- | --- | --- |"
)
for name in "${names[@]}"; do
    test_environment "$name" "$@" || failed=1
done
printf '%s\n' "" "$(date +%Y-%m-%d), commit $(git rev-parse --short HEAD 2>/dev/null || echo unknown), python -m pytest $*" \
    "" "${table[@]}"
exit $failed
