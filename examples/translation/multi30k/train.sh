#!/usr/bin/env bash
# Train Transformer-Tiny on Multi30k: train.sh SYSTEM DATA SAVE_DIR [more fairseq-train flags]
#   SYSTEM    label_smoothing, or self_kd
#   DATA      the folder `bin` that selfkd-prepare made
#   SAVE_DIR  checkpoints and log; a run that was cut off goes on from its last checkpoint
# One recipe for both systems: only the criterion differs.
set -euo pipefail
if [ $# -lt 3 ]; then
    sed -n '2,6s/^# //p' "$0" >&2
    exit 2
fi
system=$1 data=$2 save_dir=$3
shift 3
plugin=$(cd "$(dirname "${BASH_SOURCE[0]}")/../../.." && pwd)/selfkd_fairseq

case $system in
    label_smoothing) criterion=(--criterion label_smoothed_cross_entropy --label-smoothing 0.1) ;;
    self_kd) criterion=(--criterion self_kd --label-smoothing 0.1 --skd-alpha 0.5 --skd-warmup-updates 2000) ;;
    *) echo "train.sh: SYSTEM must be label_smoothing or self_kd, got '$system'" >&2; exit 2 ;;
esac
mkdir -p "$save_dir"
exec fairseq-train "$data" --user-dir "$plugin" "${criterion[@]}" \
    --arch transformer_multi30k --share-all-embeddings --dropout 0.3 \
    --optimizer adam --adam-betas '(0.9, 0.98)' --clip-norm 25 \
    --lr 0.005 --lr-scheduler inverse_sqrt --warmup-updates 1000 --warmup-init-lr 1e-7 \
    --max-tokens 4096 --num-workers 0 --update-epoch-batch-itr True --max-epoch 15 --seed 1 \
    --save-dir "$save_dir" --keep-last-epochs 5 --log-format json --log-file "$save_dir/log.json" "$@"
