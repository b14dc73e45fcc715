#!/usr/bin/env bash
# Train cross-entropy, label smoothing and self_kd on a corpus whose truth is known, and compare them.
#   bash scripts/demo.sh [--output DIR] [--seed N] [--self-kd-flags FLAGS] [--quick]
# Sets up .venv if need be. Writes demo-output/ (or DIR) anew on each call: table.md, curves.png, commands.sh.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
case " $* " in *" -h "* | *" --help "*) sed -n '2,4s/^# //p' "${BASH_SOURCE[0]}"; exit 0 ;; esac
bash "$root/scripts/setup.sh"
echo "[demo] loading torch and fairseq"
# Modules come from the checkout and never from the current folder, which stays, as DIR may be relative to it.
export PYTHONSAFEPATH=1 PYTHONPATH="$root${PYTHONPATH:+:$PYTHONPATH}"
exec "$root/.venv/bin/python" -m examples.synonyms.demo "$@"
