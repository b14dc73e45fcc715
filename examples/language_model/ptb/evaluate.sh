#!/usr/bin/env bash
# Perplexity on the Penn Treebank: evaluate.sh DATA CHECKPOINT [more fairseq-eval-lm flags]
#   DATA        the folder `bin` that selfkd-prepare made
#   CHECKPOINT  for example SAVE_DIR/checkpoint_best.pt
# One stream, so that the state is never reset: every token but the first is scored given all tokens before it.
set -euo pipefail
if [ $# -lt 2 ]; then
    sed -n '2,4s/^# //p' "$0" >&2
    exit 2
fi
data=$1 checkpoint=$2
shift 2
plugin=$(cd "$(dirname "${BASH_SOURCE[0]}")/../../.." && pwd)/selfkd_fairseq
for split in valid test; do
    echo "$split: $(fairseq-eval-lm "$data" --user-dir "$plugin" --task bptt_language_modeling --path "$checkpoint" \
        --gen-subset "$split" --batch-size 1 --tokens-per-sample 200 --num-workers 0 "$@" 2>&1 | grep -o 'Loss (base 2).*')"
done
