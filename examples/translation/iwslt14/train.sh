#!/usr/bin/env bash
# Train on IWSLT14 German to English (or the other way): train.sh SYSTEM DATA SAVE_DIR [more fairseq-train flags]
#   SYSTEM    label_smoothing, self_kd, or self_kd_predicted (the approximation of the paper, one pass)
#   DATA      the folder `bin` that selfkd-prepare made
#   SAVE_DIR  checkpoints and log; a run that was cut off goes on from its last checkpoint
set -euo pipefail
recipe=(
    --arch transformer_selfkd_iwslt --share-decoder-input-output-embed --weight-decay 0.0001
    --lr 5e-4 --max-tokens 4096 --max-epoch 50 --keep-last-epochs 10
)
source "$(dirname "${BASH_SOURCE[0]}")/../train_common.sh"
