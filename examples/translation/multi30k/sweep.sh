#!/usr/bin/env bash
# Train, translate and evaluate each system with each seed: sweep.sh PREPARED SWEEP [overrides of the YAML]
#   PREPARED   the folder that selfkd-prepare made (it holds bin, tok and raw)
#   SWEEP      one folder SWEEP/SYSTEM/SEED for each run
#   overrides  for example common.cpu=true, optimization.max_epoch=3, common.seed=1,2,3
# Given again, it goes on where it was cut off; what is finished is not done again. Then selfkd-compare makes the
# table and the plots.
set -euo pipefail
if [ $# -lt 2 ]; then
    sed -n '2,7s/^# //p' "$0" >&2
    exit 2
fi
prepared=$(realpath -s "$1") sweep=$(realpath -ms "$2")
shift 2
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$here/../../.." && pwd)
source "$root/examples/paths.sh"
check_paths "$root" "$prepared" "$sweep"
refuse ':' 'the end of the path' "$prepared" "$sweep" # now, and not after the trainings
user_dir=$(hydra_quote "$root/selfkd_fairseq")
data=$(hydra_quote "$prepared/bin")
sweep_dir=$(hydra_quote "$sweep")
# Hydra imports the callback of the YAML before fairseq knows of the plugin.
export PYTHONPATH="$root${PYTHONPATH:+:$PYTHONPATH}"
# A run that was killed while it copied a checkpoint goes on, too.
export SELFKD_HARDENED="${SELFKD_HARDENED-1}"

fairseq-hydra-train --config-dir "$here/config" --config-name multi30k -m \
    "common.user_dir=$user_dir" "task.data=$data" "hydra.sweep.dir=$sweep_dir" "$@"

cpu=()
for override in "$@"; do
    if [ "$override" = common.cpu=true ]; then cpu=(--cpu); fi
done
for checkpoint in "$sweep"/*/*/checkpoints/checkpoint_best.pt; do
    run=$(dirname "$(dirname "$checkpoint")")
    if [ "$run/results" -nt "$checkpoint" ]; then continue; fi
    echo "evaluating $run"
    bash "$here/evaluate.sh" "$prepared" "$checkpoint" "$run/results" ${cpu[@]+"${cpu[@]}"}
done
