#!/usr/bin/env bash
# Train and validate forms of the method on Multi30k, one after the other: search.sh PREPARED RUNS [flags of fairseq-train]
#   PREPARED  the folder that selfkd-prepare made (it holds bin, tok and raw)
#   RUNS      one folder RUNS/NAME/SEED for each row of search.tsv, as selfkd-compare reads them
#   ROWS      in the environment: another file of rows (a line each: name, tab, flags of fairseq-train)
#   NAMES     in the environment: names of the rows to run (all)
#   SEEDS     in the environment: of each row (1)
# 40 epochs; of the best checkpoint and of the mean of the last five likelihood and calibration on the validation set, and
# BLEU of the mean. Given again, it goes on where it was cut off. The test set is not looked at.
set -euo pipefail
if [ $# -lt 2 ]; then
    sed -n '2,9s/^# //p' "$0" >&2
    exit 2
fi
prepared=$(realpath -s "$1") runs=$(realpath -ms "$2")
shift 2
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$here/../../.." && pwd)
export PYTHONPATH="$root${PYTHONPATH:+:$PYTHONPATH}"
cpu=()
for flag in "$@"; do
    if [ "$flag" = --cpu ]; then cpu=(--cpu); fi
done

# validate CHECKPOINT RESULTS [translate]
validate() {
    rm -rf "$2.unfinished"
    python -m selfkd_fairseq.cli.evaluate "$prepared/bin" --path "$1" --gen-subset valid --results-path "$2.unfinished" \
        ${cpu[@]+"${cpu[@]}"}
    if [ "${3:-}" = translate ]; then
        fairseq-generate "$prepared/bin" --user-dir "$root/selfkd_fairseq" --path "$1" --gen-subset valid --beam 5 --lenpen 1 \
            --remove-bpe --max-tokens 4096 --required-batch-size-multiple 1 --results-path "$2.unfinished" ${cpu[@]+"${cpu[@]}"}
    fi
    mv "$2.unfinished" "$2"
}

while IFS=$'\t' read -r -u 3 name flags; do
    case $name in '' | \#*) continue ;; esac
    if [ -n "${NAMES:-}" ] && ! [[ " $NAMES " == *" $name "* ]]; then continue; fi
    for seed in ${SEEDS:-1}; do
        run=$runs/$name/$seed
        if [ -d "$run/results" ]; then continue; fi
        echo "[search] $name, seed $seed: $flags"
        # shellcheck disable=SC2086  # a row holds several flags
        bash "$here/train.sh" label_smoothing "$prepared/bin" "$run/checkpoints" --seed "$seed" --log-file "$run/log.json" --max-epoch 40 \
            --required-batch-size-multiple 1 --best-checkpoint-metric nll_loss $flags "$@"
        python -m selfkd_fairseq.cli.average_checkpoints --last-epochs 5 "$run/checkpoints" --output "$run/checkpoints/average.pt"
        rm -rf "$run/best"
        validate "$run/checkpoints/checkpoint_best.pt" "$run/best"
        validate "$run/checkpoints/average.pt" "$run/results" translate
    done
done 3< "${ROWS:-$here/search.tsv}"
