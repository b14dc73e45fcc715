#!/usr/bin/env bash
# Translate and evaluate test2016 of Multi30k: evaluate.sh PREPARED CHECKPOINT RESULTS [more fairseq-generate flags]
#   PREPARED    the folder that selfkd-prepare made (it holds bin, tok and raw)
#   CHECKPOINT  for example SAVE_DIR/checkpoint_best.pt
#   RESULTS     folder to make: translations, scores, likelihood and calibration; selfkd-compare reads it
# Two scores, each with its sacreBLEU signature: BLEU on lower-cased tokens, as published for this set-up, and
# case-insensitive BLEU of detokenised text against the untokenised references.
set -euo pipefail
if [ $# -lt 3 ]; then
    sed -n '2,7s/^# //p' "$0" >&2
    exit 2
fi
prepared=$1 checkpoint=$2 results=$3
shift 3
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../../.." && pwd)
export PYTHONPATH="$root${PYTHONPATH:+:$PYTHONPATH}"
pair=$(basename -a "$prepared"/bin/test.*.idx | head -n 1 | cut -d . -f 2)
target=${pair#*-}
cpu=()
for flag in "$@"; do
    if [ "$flag" = --cpu ]; then cpu=(--cpu); fi
done
# RESULTS appears when it is whole.
unfinished=$results.unfinished
rm -rf "$unfinished"

# fairseq-fixed leaves out the sentences of a last batch that is no multiple of 8, hence the multiple of 1.
fairseq-generate "$prepared/bin" --user-dir "$root/selfkd_fairseq" --path "$checkpoint" --gen-subset test \
    --beam 5 --lenpen 1 --remove-bpe --max-tokens 4096 --required-batch-size-multiple 1 \
    --results-path "$unfinished" "$@"
python -m selfkd_fairseq.cli.evaluate "$prepared/bin" --path "$checkpoint" --gen-subset test \
    --results-path "$unfinished" ${cpu[@]+"${cpu[@]}"}
python -m selfkd_fairseq.cli.score "$unfinished/generate-test.txt" --target-lang "$target" --lowercase \
    --references "$prepared/raw/test.$target" --tokenised-references "$prepared/tok/test.$target" \
    | tee "$unfinished/scores.txt"
rm -rf "$results"
mv "$unfinished" "$results"
