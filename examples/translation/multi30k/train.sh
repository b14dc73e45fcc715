#!/usr/bin/env bash
# Train Transformer-Tiny on Multi30k: train.sh SYSTEM DATA SAVE_DIR [more fairseq-train flags]
#   SYSTEM    label_smoothing, self_kd, or self_kd_predicted (the approximation of the paper, one pass)
#   DATA      the folder `bin` that selfkd-prepare made
#   SAVE_DIR  checkpoints and log; a run that was cut off goes on from its last checkpoint
set -euo pipefail
recipe=(
    --arch transformer_multi30k --share-all-embeddings --dropout 0.3 --clip-norm 25 --lr 0.005 --warmup-updates 1000
    --max-tokens 4096 --num-workers 0 --max-epoch 40 --keep-last-epochs 5
)
source "$(dirname "${BASH_SOURCE[0]}")/../train_common.sh"
