#!/usr/bin/env bash
# Translate and evaluate tst2013: evaluate.sh PREPARED CHECKPOINT RESULTS [more fairseq-generate flags]
#   PREPARED    the folder that selfkd-prepare made (it holds bin, tok and raw)
#   CHECKPOINT  for example SAVE_DIR/checkpoint_best.pt
#   RESULTS     folder to make: translations, scores, likelihood and calibration; selfkd-compare reads it
# The corpus is published in tokens, so BLEU on tokens is the score to compare; the detokenised scores are against
# references that were detokenised, too.
set -euo pipefail
search=(--beam 5 --lenpen 1)
set_scores() { scores=(--tokenised-references "$prepared/tok/test.$target"); }
source "$(dirname "${BASH_SOURCE[0]}")/../evaluate_common.sh"
