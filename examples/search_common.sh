# Sourced by the search.sh of a corpus after its check of the number of arguments, with the same arguments. It sets `here` and `data`,
# the binarised data, and has `train_and_evaluate SPLIT RUN SEED REST [flags]`: train RUN where that is not done, and leave
# RUN/results.unfinished with what was found out of SPLIT, evaluate-SPLIT.json among it. REST is what stands in the row after its name.
runs=$(realpath -ms "$2")
root=$(cd "$here/../../.." && pwd)
export PYTHONPATH="$root${PYTHONPATH:+:$PYTHONPATH}"
cpu=()
for flag in "${@:3}"; do
    if [ "$flag" = --cpu ]; then cpu=(--cpu); fi
done

# evaluate SPLIT CHECKPOINT RESULTS
evaluate() {
    python -m selfkd_fairseq.cli.evaluate "$data" --path "$2" --gen-subset "$1" --results-path "$3" ${cpu[@]+"${cpu[@]}"}
}

# Every row with the first seed, then every row with the next.
pairs() {
    local seed name rest
    for seed in ${SEEDS:-1}; do
        while IFS=$'\t' read -r name rest; do
            case $name in '' | \#*) continue ;; esac
            if [ -z "${NAMES:-}" ] || [[ " $NAMES " == *" $name "* ]]; then printf '%s\t%s\t%s\n' "$seed" "$name" "$rest"; fi
        done < "${ROWS:-$here/search.tsv}"
    done
}

search() {
    local seed name rest run split file
    if [ "${JOBS:-1}" != 1 ]; then
        # shellcheck disable=SC2016  # for the shells of xargs, which puts seed and name behind all else
        pairs | cut -f 1,2 | JOBS=1 xargs -P "$JOBS" -L 1 \
            bash -c 'SEEDS=${@: -2:1} NAMES=${@: -1} exec bash "${@:1:$#-2}"' search "$0" "$@"
        return
    fi
    while IFS=$'\t' read -r -u 3 seed name rest; do
        run=$runs/$name/$seed
        for split in ${SPLITS:-valid}; do
            if [ -e "$run/results/evaluate-$split.json" ]; then continue; fi
            echo "[search] $name, seed $seed, $split: $rest"
            rm -rf "$run/results.unfinished"
            train_and_evaluate "$split" "$run" "$seed" "$rest" "${@:3}"
            mkdir -p "$run/results"
            for file in "$run/results.unfinished"/*; do # last what says that the split is done
                if [ "${file##*/}" != "evaluate-$split.json" ]; then mv "$file" "$run/results"; fi
            done
            mv "$run/results.unfinished/evaluate-$split.json" "$run/results"
            rmdir "$run/results.unfinished"
        done
    done 3< <(pairs)
}
