#!/usr/bin/env bash
# Prepare the Penn Treebank for language models in data-bin/ptb of the checkout, downloading what it needs.
# Arguments are passed on to selfkd-prepare and win over these defaults, for example: --raw DIR --dest DIR.
set -euo pipefail

root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
python="$root/.venv/bin/python"
if [[ ! -x "$python" ]]; then
  python="$(command -v python || command -v python3)"
fi

export PYTHONPATH="$root${PYTHONPATH:+:$PYTHONPATH}"
exec "$python" -m selfkd_fairseq.cli.prepare ptb --dest "$root/data-bin/ptb" "$@"
