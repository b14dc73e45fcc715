#!/usr/bin/env bash
# Translate test2016 of Multi30k and score it: evaluate.sh PREPARED CHECKPOINT OUT [more fairseq-generate flags]
#   PREPARED    the folder that selfkd-prepare made (it holds bin, tok and raw)
#   CHECKPOINT  for example SAVE_DIR/checkpoint_best.pt
#   OUT         folder for the translations and scores
# Two scores, each with its sacreBLEU signature: BLEU on lower-cased tokens, as published for this set-up, and
# case-insensitive BLEU of detokenised text against the untokenised references.
set -euo pipefail
if [ $# -lt 3 ]; then
    sed -n '2,7s/^# //p' "$0" >&2
    exit 2
fi
prepared=$1 checkpoint=$2 out=$3
shift 3
plugin=$(cd "$(dirname "${BASH_SOURCE[0]}")/../../.." && pwd)/selfkd_fairseq
mkdir -p "$out"

# fairseq-fixed leaves out the sentences of a last batch that is no multiple of 8, hence the multiple of 1.
fairseq-generate "$prepared/bin" --user-dir "$plugin" --path "$checkpoint" --gen-subset test \
    --beam 5 --lenpen 1 --remove-bpe --max-tokens 4096 --required-batch-size-multiple 1 "$@" > "$out/generate.txt"
grep '^H-' "$out/generate.txt" | sed 's/^H-//' | sort -n | cut -f 3 > "$out/hypotheses.tok"
sacremoses -l de detokenize < "$out/hypotheses.tok" > "$out/hypotheses.txt"

sacrebleu "$prepared/tok/test.de" -i "$out/hypotheses.tok" -m bleu --tokenize none --force > "$out/bleu_tokenised.json"
sacrebleu "$prepared/raw/test.de" -i "$out/hypotheses.txt" -m bleu chrf -lc --chrf-lowercase > "$out/sacrebleu.json"
for scores in bleu_tokenised sacrebleu; do
    echo "$scores:"
    cat "$out/$scores.json"
done
