#!/usr/bin/env bash
# Train and validate forms of the method on the Penn Treebank, one after the other: search.sh DATA RUNS [flags of fairseq-train]
#   DATA   the folder `bin` that selfkd-prepare made
#   RUNS   one folder RUNS/NAME/SEED for each row of search.tsv, as selfkd-compare reads them
#   ROWS   in the environment: another file of rows (a line each: name, model of train.sh, flags of fairseq-train; tabs between)
#   NAMES  in the environment: names of the rows to run (all)
#   SEEDS  in the environment: of each row (1)
# Of the best checkpoint likelihood and calibration on the validation text. Given again, it goes on where it was cut off. The
# test text is not looked at.
set -euo pipefail
if [ $# -lt 2 ]; then
    sed -n '2,9s/^# //p' "$0" >&2
    exit 2
fi
data=$1 runs=$2
shift 2
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$here/../../.." && pwd)
export PYTHONPATH="$root${PYTHONPATH:+:$PYTHONPATH}"
cpu=()
for flag in "$@"; do
    if [ "$flag" = --cpu ]; then cpu=(--cpu); fi
done

while IFS=$'\t' read -r -u 3 name model flags; do
    case $name in '' | \#*) continue ;; esac
    if [ -n "${NAMES:-}" ] && ! [[ " $NAMES " == *" $name "* ]]; then continue; fi
    for seed in ${SEEDS:-1}; do
        run=$runs/$name/$seed
        if [ -d "$run/results" ]; then continue; fi
        echo "[search] $name, seed $seed: $model $flags"
        # shellcheck disable=SC2086  # a row holds several flags
        bash "$here/train.sh" "$model" cross_entropy "$data" "$run/checkpoints" --seed "$seed" --log-file "$run/log.json" $flags "$@"
        rm -rf "$run/results.unfinished"
        python -m selfkd_fairseq.cli.evaluate "$data" --path "$run/checkpoints/checkpoint_best.pt" --gen-subset valid \
            --results-path "$run/results.unfinished" ${cpu[@]+"${cpu[@]}"}
        mv "$run/results.unfinished" "$run/results"
    done
done 3< "${ROWS:-$here/search.tsv}"
