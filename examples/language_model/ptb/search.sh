#!/usr/bin/env bash
# Train and evaluate systems on the Penn Treebank: search.sh DATA RUNS [flags of fairseq-train]
#   DATA    the folder `bin` that selfkd-prepare made
#   RUNS    one folder RUNS/NAME/SEED for each row of search.tsv, as selfkd-compare reads them
# In the environment:
#   ROWS    another file of rows (a line each: name, model of train.sh, flags of fairseq-train; tabs between)
#   NAMES   names of the rows to run (all)
#   SEEDS   of each row (1)
#   JOBS    trainings at a time (1)
#   SPLITS  which splits of the data are looked at (valid)
# Of the best checkpoint likelihood and calibration. Given again, it goes on where it was cut off.
set -euo pipefail
if [ $# -lt 2 ]; then
    sed -n '2,11s/^# //p' "$0" >&2
    exit 2
fi
data=$1
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
source "$here/../../search_common.sh"

train_and_evaluate() {
    local split=$1 run=$2 seed=$3 model flags checkpoints=$2/checkpoints
    read -r model flags <<< "$4" # a row without flags has lost the tab behind its model
    shift 4
    # shellcheck disable=SC2086  # a row holds several flags
    bash "$here/train.sh" "$model" cross_entropy "$data" "$checkpoints" --seed "$seed" --log-file "$run/log.json" $flags "$@"
    evaluate "$split" "$checkpoints/checkpoint_best.pt" "$run/results.unfinished"
}

search "$@"
