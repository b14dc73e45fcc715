#!/usr/bin/env bash
# Train and evaluate systems on Multi30k: search.sh PREPARED RUNS [flags of fairseq-train]
#   PREPARED     the folder that selfkd-prepare made (it holds bin, tok and raw)
#   RUNS         one folder RUNS/NAME/SEED for each row of search.tsv, as selfkd-compare reads them
# In the environment:
#   ROWS         another file of rows (a line each: name, tab, flags of fairseq-train)
#   NAMES        names of the rows to run (all)
#   SEEDS        of each row (1)
#   JOBS         trainings at a time (1)
#   SPLITS       which splits of the data are looked at (valid)
#   LAST_EPOCHS  whose mean is taken (5)
# 40 epochs; of the mean of the last epochs likelihood, calibration and translations, of the best checkpoint likelihood on the
# validation set. Given again, it goes on where it was cut off.
set -euo pipefail
if [ $# -lt 2 ]; then
    sed -n '2,13s/^# //p' "$0" >&2
    exit 2
fi
data=$(realpath -s "$1")/bin
last_epochs=${LAST_EPOCHS:-5}
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
source "$here/../../search_common.sh"

train_and_evaluate() {
    local split=$1 run=$2 seed=$3 flags=$4 checkpoints=$2/checkpoints
    shift 4
    if [ ! -e "$checkpoints/average.pt" ]; then
        # shellcheck disable=SC2086  # a row holds several flags
        bash "$here/train.sh" label_smoothing "$data" "$checkpoints" --seed "$seed" --log-file "$run/log.json" \
            --keep-last-epochs "$last_epochs" --required-batch-size-multiple 1 --best-checkpoint-metric nll_loss $flags "$@"
        python -m selfkd_fairseq.cli.average_checkpoints --last-epochs "$last_epochs" "$checkpoints" --output "$checkpoints/average.pt"
    fi
    if [ "$split" = valid ]; then evaluate valid "$checkpoints/checkpoint_best.pt" "$run/best"; fi
    evaluate "$split" "$checkpoints/average.pt" "$run/results.unfinished"
    fairseq-generate "$data" --user-dir "$root/selfkd_fairseq" --path "$checkpoints/average.pt" --gen-subset "$split" \
        --beam 5 --lenpen 1 --remove-bpe --max-tokens 4096 --required-batch-size-multiple 1 \
        --results-path "$run/results.unfinished" ${cpu[@]+"${cpu[@]}"}
}

search "$@"
