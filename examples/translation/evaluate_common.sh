# Sourced by the evaluate.sh of a corpus, which sets `search`, flags of fairseq-generate, and has `set_scores`, which
# sets `scores`, flags of selfkd-score, from `prepared`, the prepared folder, and `target`, the target language.
if [ $# -lt 3 ]; then
    sed -n '2,/^set /s/^# //p' "$0" >&2
    exit 2
fi
prepared=$1 checkpoint=$2 results=$3
shift 3
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
export PYTHONPATH="$root${PYTHONPATH:+:$PYTHONPATH}"
source "$root/examples/paths.sh"
check_paths "$root" "$prepared" "$checkpoint" "$results"
refuse ':' 'the end of the path' "$prepared" "$checkpoint"
pair=$(basename -a "$prepared"/bin/test.*.idx | head -n 1 | cut -d . -f 2)
target=${pair#*-}
cpu=()
for flag in "$@"; do
    if [ "$flag" = --cpu ]; then cpu=(--cpu); fi
done
set_scores
# RESULTS appears when it is whole.
unfinished=$results.unfinished
rm -rf "$unfinished"

# fairseq 0.12.3 leaves out the sentences of a last batch that is no multiple of 8, hence the multiple of 1.
fairseq-generate "$prepared/bin" --user-dir "$root/selfkd_fairseq" --path "$checkpoint" --gen-subset test \
    "${search[@]}" --remove-bpe --max-tokens 4096 --required-batch-size-multiple 1 --results-path "$unfinished" "$@"
python -m selfkd_fairseq.cli.evaluate "$prepared/bin" --path "$checkpoint" --gen-subset test \
    --results-path "$unfinished" ${cpu[@]+"${cpu[@]}"}
python -m selfkd_fairseq.cli.score "$unfinished/generate-test.txt" --target-lang "$target" "${scores[@]}" \
    | tee "$unfinished/scores.txt"
rm -rf "$results"
mv "$unfinished" "$results"
