# Sourced by the train.sh of a corpus, which sets `recipe`, flags of fairseq-train that win over those below. One recipe
# for all systems: only the criterion differs. Flags of the caller win over all.
if [ $# -lt 3 ]; then
    sed -n '2,/^set /s/^# //p' "$0" >&2
    exit 2
fi
system=$1 data=$2 save_dir=$3
shift 3
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
source "$root/examples/paths.sh"
check_paths "$root" "$data" "$save_dir"

case $system in
    label_smoothing) criterion=(--criterion label_smoothed_cross_entropy --label-smoothing 0.1) ;;
    self_kd | self_kd_predicted)
        criterion=(--criterion self_kd --label-smoothing 0.1 --skd-alpha 0.5 --skd-warmup-updates 4000) ;;
    *) echo "train.sh: SYSTEM must be label_smoothing, self_kd or self_kd_predicted, got '$system'" >&2; exit 2 ;;
esac
if [ "$system" = self_kd_predicted ]; then criterion+=(--skd-teacher embedding); fi
mkdir -p "$save_dir"
exec fairseq-train "$data" --user-dir "$root/selfkd_fairseq" "${criterion[@]}" \
    --optimizer adam --adam-betas '(0.9, 0.98)' --clip-norm 0 \
    --lr-scheduler inverse_sqrt --warmup-updates 4000 --warmup-init-lr 1e-7 --update-epoch-batch-itr True --seed 1 --load-checkpoint-on-all-dp-ranks \
    "${recipe[@]}" --save-dir "$save_dir" --log-format json --log-file "$save_dir/log.json" "$@"
