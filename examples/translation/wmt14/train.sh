#!/usr/bin/env bash
# Train on WMT14 English to German (or the other way): train.sh SYSTEM DATA SAVE_DIR [more fairseq-train flags]
#   SYSTEM    label_smoothing, self_kd, or self_kd_predicted (the approximation of the paper, one pass)
#   DATA      the folder `bin` that selfkd-prepare made
#   SAVE_DIR  checkpoints and log; a run that was cut off goes on from its last checkpoint
set -euo pipefail
recipe=(
    --arch transformer_selfkd_wmt_base --share-all-embeddings
    --lr 7e-4 --max-tokens 4096 --update-freq 8 --max-update 100000 --keep-last-epochs 10
)
source "$(dirname "${BASH_SOURCE[0]}")/../train_common.sh"
