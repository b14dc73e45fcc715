#!/usr/bin/env bash
# Translate and evaluate test2016 of Multi30k: evaluate.sh PREPARED CHECKPOINT RESULTS [more fairseq-generate flags]
#   PREPARED    the folder that selfkd-prepare made (it holds bin, tok and raw)
#   CHECKPOINT  for example SAVE_DIR/checkpoint_best.pt
#   RESULTS     folder to make: translations, scores, likelihood and calibration; selfkd-compare reads it
# Two scores, each with its sacreBLEU signature: BLEU on lower-cased tokens, as published for this set-up, and
# case-insensitive BLEU of detokenised text against the untokenised references.
set -euo pipefail
search=(--beam 5 --lenpen 1)
set_scores() {
    scores=(--lowercase --references "$prepared/raw/test.$target" --tokenised-references "$prepared/tok/test.$target")
}
source "$(dirname "${BASH_SOURCE[0]}")/../evaluate_common.sh"
