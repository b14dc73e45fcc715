#!/usr/bin/env bash
# Make .venv at the top of the checkout and install the pinned requirements: bash scripts/setup.sh
#   PYTHON=...      the interpreter, 3.11 or newer (default: python3.11, else the first newer one that is found)
#   SETUP_VENV=...  another place for the environment than .venv (an absolute path)
# pip's own settings (its configuration files, PIP_* variables) hold as always. A second call returns at once; an
# install that was cut off is completed. The plugin itself is not installed: a checkout needs only --user-dir.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
venv=${SETUP_VENV:-$root/.venv}
requirements=$root/requirements.txt
wheel=$root/scripts/environments/fairseq_wheel.txt
stamp=$venv/requirements.stamp
log=$venv/setup.log
# In fairseq's setup.py the first adds GPU parts whose sources its package lacks, the second leaves all compiled parts out.
unset CUDA_HOME READTHEDOCS

die() { echo "setup.sh: $*" >&2; exit 1; }

# logged TITLE COMMAND...: output goes to the log, and every 10 seconds a line shows that it is alive
logged() {
    local title=$1 status=0 ticker
    shift
    echo "[setup ${SECONDS} s] $title"
    (
        # the redirections keep an orphaned sleep from holding the caller's pipe open
        while sleep 10 </dev/null >/dev/null 2>&1 && kill -0 $$ 2>/dev/null; do
            echo "[setup ${SECONDS} s] ... $(tail -n 1 "$log" 2>/dev/null | cut -c1-100)"
        done
    ) &
    ticker=$!
    disown "$ticker" # else the shell tells how it ended
    "$@" >>"$log" 2>&1 || status=$?
    kill "$ticker" 2>/dev/null || true
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

# Where no wheel of fairseq fits it is compiled: say now what would otherwise fail minutes later
check_compiler() {
    local include
    command -v "${CC:-cc}" >/dev/null || command -v gcc >/dev/null ||
        die "no wheel of fairseq fits ($log) and there is no C compiler; install gcc and g++ (Debian, Ubuntu: build-essential)"
    command -v "${CXX:-c++}" >/dev/null || command -v g++ >/dev/null ||
        die "no wheel of fairseq fits ($log) and there is no C++ compiler; install g++ (Debian, Ubuntu: build-essential)"
    include=$("$python" -c 'import sysconfig; print(sysconfig.get_paths()["include"])')
    [ -f "$include/Python.h" ] ||
        die "no wheel of fairseq fits ($log) and there is no Python.h in $include; install the Python headers (Debian, Ubuntu: python3.11-dev)"
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

# fairseq without its dependencies: requirements.txt has what is needed of them. First of all, so that a compiler that is
# missing is noticed before the downloads. An environment of before may hold the other of the two, with the same files.
take_wheel() {
    "$venv/bin/python" -m pip uninstall --yes ve-fairseq fairseq-fixed &&
        "${pip_install[@]}" --only-binary :all: --no-deps -r "$wheel"
}
compile=
echo "[setup ${SECONDS} s] looking for a wheel of fairseq"
take_wheel >>"$log" 2>&1 || compile=1
if [ "$compile" ]; then check_compiler; fi

sed -n '/^# build/,/^# fairseq/p' "$requirements" >"$venv/build-requirements.txt"
sed '/fairseq.*==/d' "$requirements" >"$venv/run-requirements.txt"
logged "installing torch and the build tools: a large download" "${pip_install[@]}" -r "$venv/build-requirements.txt"
logged "installing the rest" "${pip_install[@]}" --no-build-isolation -r "$venv/run-requirements.txt"
if [ "$compile" ]; then
    logged "compiling fairseq, as no wheel of it fits: 2 to 4 minutes on 2 cores" \
        "${pip_install[@]}" --no-build-isolation --no-deps \
        "$(sed -n 's/^\(fairseq-fixed==[^ ;]*\).*/\1/p' "$requirements")"
fi
compiled="fairseq.libbleu, fairseq.libnat, fairseq.data.data_utils_fast, fairseq.data.token_block_utils_fast"
logged "checking that everything can be imported" "$venv/bin/python" -c \
    "import torch, $compiled, matplotlib, pytest, sacrebleu, sacremoses, subword_nmt"
echo "$expected" >"$stamp"
echo "[setup ${SECONDS} s] done: . '$venv/bin/activate'"
