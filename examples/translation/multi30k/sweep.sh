#!/usr/bin/env bash
# Train, translate and evaluate each system with each seed: sweep.sh PREPARED SWEEP [overrides of the YAML]
#   PREPARED   the folder that selfkd-prepare made (it holds bin, tok and raw)
#   SWEEP      one folder SWEEP/SYSTEM/SEED for each run
#   overrides  for example common.cpu=true, optimization.max_epoch=3, common.seed=1,2,3
# Given again, it goes on where it was cut off; what is finished is not done again. Compare the runs with
#   selfkd-compare SWEEP/*/* --baseline label_smoothing --references PREPARED/raw/test.de --lowercase --output SWEEP/comparison
set -euo pipefail
if [ $# -lt 2 ]; then
    sed -n '2,7s/^# //p' "$0" >&2
    exit 2
fi
prepared=$(realpath "$1") sweep=$(realpath -m "$2")
shift 2
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$here/../../.." && pwd)
# Hydra imports the callback of the YAML before fairseq knows of the plugin.
export PYTHONPATH="$root${PYTHONPATH:+:$PYTHONPATH}"

fairseq-hydra-train --config-dir "$here/config" --config-name multi30k -m \
    "common.user_dir=$root/selfkd_fairseq" "task.data=$prepared/bin" "hydra.sweep.dir=$sweep" "$@"

flags=()
for override in "$@"; do
    if [ "$override" = common.cpu=true ]; then flags=(--cpu); fi
done
for checkpoint in "$sweep"/*/*/checkpoints/checkpoint_best.pt; do
    run=$(dirname "$(dirname "$checkpoint")")
    if [ -e "$run/results" ] && [ ! "$checkpoint" -nt "$run/results" ]; then continue; fi
    echo "evaluating $run"
    rm -rf "$run/results" "$run/results.unfinished"
    # fairseq-fixed leaves out the sentences of a last batch that is no multiple of 8, hence the multiple of 1.
    fairseq-generate "$prepared/bin" --user-dir "$root/selfkd_fairseq" --path "$checkpoint" --gen-subset test \
        --beam 5 --lenpen 1 --remove-bpe --max-tokens 4096 --required-batch-size-multiple 1 \
        --results-path "$run/results.unfinished" "${flags[@]}"
    python -m selfkd_fairseq.cli.evaluate "$prepared/bin" --path "$checkpoint" --gen-subset test \
        --max-tokens 4096 --results-path "$run/results.unfinished" "${flags[@]}"
    mv "$run/results.unfinished" "$run/results"
done
