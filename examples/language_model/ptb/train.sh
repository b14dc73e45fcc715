#!/usr/bin/env bash
# Train an LSTM language model on the Penn Treebank: train.sh MODEL SYSTEM DATA SAVE_DIR [more fairseq-train flags]
#   MODEL     zaremba_small, zaremba_medium, zaremba_large, or awd_lstm: the published recipe of each; or 2 x 200, tied:
#             variational_small, the same units left out at every time step (0.2); tied_small, dropout 0.5, which is too much
#   SYSTEM    cross_entropy; self_kd (the default, at alpha 0.2: two passes, so the model has to have dropout, which zaremba_small
#             has not); self_kd_full and self_kd_predicted (soft targets from the embeddings alone, exact or as the paper approximates)
#   DATA      the folder `bin` that selfkd-prepare made
#   SAVE_DIR  checkpoints and log; a run that was cut off goes on from its last checkpoint
# One recipe for all systems: only the criterion differs.
set -euo pipefail
if [ $# -lt 4 ]; then
    sed -n '2,9s/^# //p' "$0" >&2
    exit 2
fi
model=$1 system=$2 data=$3 save_dir=$4
shift 4
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../../.." && pwd)
source "$root/examples/paths.sh"
check_paths "$root" "$data" "$save_dir"

# Zaremba et al. sum the loss over the window and average it over the streams: --sentence-avg does the same.
zaremba=(--sentence-avg --optimizer sgd --lr 1.0 --lr-scheduler fixed --batch-size 20)
case $model in
    zaremba_small) recipe=(--arch lstm_lm_zaremba_small "${zaremba[@]}" --tokens-per-sample 20 --clip-norm 5
        --force-anneal 6 --lr-shrink 0.5 --max-epoch 13) ;;
    zaremba_medium) recipe=(--arch lstm_lm_zaremba_medium "${zaremba[@]}" --tokens-per-sample 35 --clip-norm 5
        --force-anneal 8 --lr-shrink 0.8333333 --max-epoch 39) ;;
    zaremba_large) recipe=(--arch lstm_lm_zaremba_large "${zaremba[@]}" --tokens-per-sample 35 --clip-norm 10
        --force-anneal 16 --lr-shrink 0.8695652 --max-epoch 55) ;;
    tied_small) recipe=(--arch lstm_lm_zaremba_small --share-decoder-input-output-embed --dropout 0.5 "${zaremba[@]}"
        --tokens-per-sample 35 --clip-norm 5 --force-anneal 11 --lr-shrink 0.7 --max-epoch 20) ;;
    variational_small) recipe=(--arch awd_lstm_lm --decoder-embed-dim 200 --decoder-hidden-size 200 --decoder-layers 2
        --dropout 0.2 --input-dropout 0.2 --hidden-dropout 0.2 --weight-dropout 0.2 --embedding-dropout 0.05
        --activation-regularization 0 --temporal-activation-regularization 0 "${zaremba[@]}"
        --tokens-per-sample 35 --clip-norm 5 --force-anneal 13 --lr-shrink 0.75 --max-epoch 25) ;;
    awd_lstm) recipe=(--arch awd_lstm_ptb --optimizer nt_asgd --nonmonotone 5 --lr 30 --weight-decay 1.2e-6
        --lr-scheduler fixed --batch-size 20 --batch-size-valid 10 --tokens-per-sample 70 --variable-bptt
        --clip-norm 0.25 --max-epoch 500) ;;
    *)
        models="zaremba_small, zaremba_medium, zaremba_large, variational_small, tied_small or awd_lstm"
        echo "train.sh: MODEL must be $models, got '$model'" >&2
        exit 2
        ;;
esac
case $system in
    cross_entropy) criterion=(--criterion cross_entropy) ;;
    self_kd) criterion=(--criterion self_kd --skd-alpha 0.2) ;;
    self_kd_full) criterion=(--criterion self_kd --skd-teacher embedding --skd-support full --skd-temperature 0.25
        --skd-alpha 0.1 --skd-warmup-updates 0) ;;
    self_kd_predicted) criterion=(--criterion self_kd --skd-teacher embedding --skd-alpha 0.1 --skd-warmup-updates 0) ;;
    *) echo "train.sh: SYSTEM must be cross_entropy, self_kd, self_kd_full or self_kd_predicted, got '$system'" >&2; exit 2 ;;
esac
mkdir -p "$save_dir"
exec fairseq-train "$data" --user-dir "$root/selfkd_fairseq" --task bptt_language_modeling \
    "${recipe[@]}" "${criterion[@]}" \
    --seed 1 --distributed-world-size 1 --num-workers 0 --save-dir "$save_dir" --no-epoch-checkpoints --best-checkpoint-metric ppl \
    --log-format json --log-interval 500 --log-file "$save_dir/log.json" "$@"
