#!/usr/bin/env bash
# Make .venv at the top of the checkout and install the pinned requirements: bash scripts/setup.sh
#   PYTHON=...  the interpreter, 3.11 or newer (default: python3.11, else the first newer one that is found)
# pip's own settings (its configuration files, PIP_* variables) hold as always. A second call returns at once; an
# install that was cut off is completed. The plugin itself is not installed: a checkout needs only --user-dir.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
venv=$root/.venv
requirements=$root/requirements.txt
stamp=$venv/requirements.stamp
log=$venv/setup.log
ticker=

die() { echo "setup.sh: $*" >&2; exit 1; }

stop_ticker() {
    if [ -n "$ticker" ]; then kill "$ticker" 2>/dev/null && wait "$ticker" 2>/dev/null || true; fi
    ticker=
}
trap stop_ticker EXIT

# logged TITLE COMMAND...: output goes to the log, and every 10 seconds a line shows that it is alive
logged() {
    local title=$1 status=0
    shift
    echo "[setup ${SECONDS} s] $title"
    (
        # the redirections keep an orphaned sleep from holding the caller's pipe open
        while sleep 10 </dev/null >/dev/null 2>&1 && kill -0 $$ 2>/dev/null; do
            echo "[setup ${SECONDS} s] ... $(tail -n 1 "$log" 2>/dev/null | cut -c1-100)"
        done
    ) &
    ticker=$!
    "$@" >>"$log" 2>&1 || status=$?
    stop_ticker
    if [ "$status" != 0 ]; then
        tail -n 5 "$log" >&2
        die "failed (code $status): $title. The whole log: $log"
    fi
}

is_new_enough() { "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; }

choose_python() {
    if [ -n "${PYTHON:-}" ]; then
        command -v "$PYTHON" >/dev/null || die "PYTHON=$PYTHON is not a command"
        is_new_enough "$PYTHON" || die "PYTHON=$PYTHON is $("$PYTHON" --version 2>&1 | head -n 1); 3.11 or newer is needed"
        python=$PYTHON
        return
    fi
    for python in python3.11 python3.12 python3.13 python3.14 python3 python; do
        if is_new_enough "$python"; then return; fi
    done
    die "found no Python 3.11 or newer (python3 is $(python3 --version 2>&1 | head -n 1));" \
        "install one, or name it: PYTHON=/path/to/python3.11 bash scripts/setup.sh"
}

# fairseq is compiled from source on Python 3.11: say now what would otherwise fail minutes later
check_compiler() {
    local include
    command -v "${CC:-cc}" >/dev/null || command -v gcc >/dev/null ||
        die "found no C compiler, which fairseq needs; install gcc and g++ (Debian, Ubuntu: build-essential)"
    command -v "${CXX:-c++}" >/dev/null || command -v g++ >/dev/null ||
        die "found no C++ compiler, which fairseq needs; install g++ (Debian, Ubuntu: build-essential)"
    include=$("$python" -c 'import sysconfig; print(sysconfig.get_paths()["include"])')
    [ -f "$include/Python.h" ] ||
        die "found no Python.h in $include; install the Python headers (Debian, Ubuntu: python3.11-dev)"
}

# Usable: pip runs, and the environment was made at this very path (its commands hold the path)
is_usable() { grep -qsF "$venv" "$venv/pyvenv.cfg" && "$venv/bin/python" -m pip --version >/dev/null 2>&1; }

expected=$(cksum <"$requirements")
is_complete() { [ "$(cat "$stamp" 2>/dev/null)" = "$expected" ] && is_usable; }

if is_complete; then
    echo "[setup] $venv is up to date"
    exit 0
fi
choose_python
check_compiler
mkdir -p "$venv"
if command -v flock >/dev/null; then # two set-ups at once would break each other's install
    exec 9>"$venv/setup.lock"
    flock -n 9 || { echo "[setup] another set-up is running in $venv: waiting for it"; flock 9; }
    if is_complete; then exit 0; fi
fi
rm -f "$stamp"
: >"$log"
if is_usable; then
    echo "[setup] completing $venv"
else
    rm -rf "$venv/bin" "$venv/lib" "$venv/lib64" "$venv/include" "$venv/pyvenv.cfg"
    logged "making $venv with $("$python" --version 2>&1)" "$python" -m venv "$venv"
fi
pip_install=("$venv/bin/python" -m pip install --disable-pip-version-check --no-input --progress-bar off)
build_requirements=$venv/build-requirements.txt
sed -n '/^# build/,/^# run/p' "$requirements" >"$build_requirements"
logged "installing torch and the build tools (1 of 2): a large download" "${pip_install[@]}" -r "$build_requirements"
logged "installing the rest (2 of 2); fairseq is compiled from source where it has no wheel: 2 to 4 minutes on 2 cores" \
    "${pip_install[@]}" --no-build-isolation -r "$requirements"
logged "checking that everything can be imported" \
    "$venv/bin/python" -c 'import fairseq, matplotlib, pytest, sacrebleu, sacremoses, subword_nmt, torch'
echo "$expected" >"$stamp"
echo "[setup ${SECONDS} s] done: . '$venv/bin/activate'"
