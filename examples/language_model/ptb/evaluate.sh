#!/usr/bin/env bash
# Perplexity of a language model: evaluate.sh DATA CHECKPOINT [more fairseq-eval-lm flags]
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
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../../.." && pwd)
source "$root/examples/paths.sh"
check_paths "$root" "$data" "$checkpoint"
for split in valid test; do
    if ! output=$(fairseq-eval-lm "$data" --user-dir "$root/selfkd_fairseq" --task bptt_language_modeling \
        --path "$checkpoint" --gen-subset "$split" --batch-size 1 --tokens-per-sample 200 \
        --num-workers 0 --distributed-world-size 1 "$@" 2>&1)
    then
        tail -n 1 <<< "$output" >&2
        exit 1
    fi
    echo "$split: $(grep -o 'Loss (base 2).*' <<< "$output")"
done
