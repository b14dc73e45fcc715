#!/usr/bin/env bash
# Translate and evaluate newstest2016: evaluate.sh PREPARED CHECKPOINT RESULTS [more fairseq-generate flags]
#   PREPARED    the folder that selfkd-prepare made (it holds bin, tok and raw)
#   CHECKPOINT  for example SAVE_DIR/checkpoint_best.pt
#   RESULTS     folder to make: translations, scores, likelihood and calibration; selfkd-compare reads it
# Detokenised BLEU against the untokenised references, and lower-cased BLEU on tokens, each with its sacreBLEU
# signature.
set -euo pipefail
search=(--beam 5 --lenpen 1)
set_scores() { scores=(--references "$prepared/raw/test.$target" --tokenised-references "$prepared/tok/test.$target"); }
source "$(dirname "${BASH_SOURCE[0]}")/../evaluate_common.sh"
