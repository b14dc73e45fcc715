#!/usr/bin/env bash
# All that only a GPU can show, in parts: bash scripts/gpu.sh OUTPUT [PART ...] [--dry-run]
#   OUTPUT      folder for CSV, JSON and logs (and checkpoints/ and runs/, which are large); what is done is not run again
#   PART        tests, benchmark, trainings or study (default: all, in this order)
#   --dry-run   print the commands and run none
# In the environment:
#   PYTHON=...      an interpreter that has torch (default: python3)
#   WHEELS=DIR      take fairseq, what it needs, and pytest, hypothesis and coverage from there, no network
#   MULTI30K=DIR    what scripts/prepare_multi30k.sh made, PTB=DIR what scripts/prepare_ptb.sh made; without them the parts
#                   that read them are passed over, with a line
#   NAMES, SEEDS, JOBS  of the study: rows of search.tsv, their seeds, trainings at a time (those of run_study, 1 2 3, 14)
#   SECONDS_IN_ALL  end after so many (default 520); what was cut off goes on when the same command is given again
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
usage() { sed -n '2,12s/^# //p' "${BASH_SOURCE[0]}" >&2; exit 2; }

output='' dry_run='' parts=()
for argument in "$@"; do
    case $argument in
        --dry-run) dry_run=1 ;;
        tests | benchmark | trainings | study) parts+=("$argument") ;;
        -*) usage ;;
        *) if [ -n "$output" ]; then usage; fi; output=$argument ;;
    esac
done
if [ -z "$output" ]; then usage; fi
if [ ${#parts[@]} = 0 ]; then parts=(tests benchmark trainings study); fi
if [ -z "$dry_run" ]; then mkdir -p "$output" && output=$(realpath "$output"); fi
seconds_in_all=${SECONDS_IN_ALL:-520}
venv=$root/.venv-gpu

# step NAME COMMAND ...: once, with its output in OUTPUT/NAME.log; a failure is noted, and the next step begins
failed=0
step() {
    local name=$1 left=$((seconds_in_all - SECONDS))
    shift
    if [ -n "$dry_run" ]; then
        printf '[gpu] %s:' "$name"
        printf ' %q' "$@"
        echo
        return
    fi
    if [ -e "$output/$name.done" ]; then return; fi
    if [ $left -le 5 ]; then
        echo "[gpu] $name: no time left, give the same command again"
        failed=1
        return
    fi
    echo "[gpu] $name"
    if timeout "$left" "$@" >"$output/$name.log" 2>&1; then
        touch "$output/$name.done"
    else
        echo "[gpu] $name: exit status $?, see $output/$name.log"
        failed=1
    fi
}

setup() {
    local python=${PYTHON:-python3} from=()
    if [ -n "${WHEELS:-}" ]; then from=(--no-index --find-links "$WHEELS"); fi
    if [ -n "$dry_run" ]; then return; fi
    if [ ! -e "$venv/ready" ]; then
        # With the torch that is there, also where that interpreter is one of a virtual environment.
        "$python" -m venv --system-site-packages "$venv"
        "$python" -c 'import site; print(*site.getsitepackages(), sep="\n")' \
            >"$("$venv/bin/python" -c 'import site; print(site.getsitepackages()[0])')/torch_that_is_there.pth"
        "$venv/bin/python" -m pip install --quiet --no-deps ${from[@]+"${from[@]}"} ve-fairseq==0.12.3
        "$venv/bin/python" -m pip install --quiet ${from[@]+"${from[@]}"} hydra-core omegaconf antlr4-python3-runtime==4.9.3 \
            bitarray regex sacrebleu sacremoses subword-nmt scikit-learn scipy matplotlib tqdm pytest pytest-xdist hypothesis \
            coverage
        touch "$venv/ready"
    fi
    # shellcheck disable=SC1091  # made just now
    . "$venv/bin/activate"
    python -c 'import torch; assert torch.cuda.is_available(), "torch sees no GPU"; print("[gpu]", torch.cuda.get_device_name())'
}

run_tests() {
    local workers
    workers=$(env -u OMP_NUM_THREADS nproc)
    if [ "$workers" -gt 12 ]; then workers=12; fi # each has a CUDA context of its own
    step tests python -m pytest -q -n "$workers" "$root/tests/criterions/test_gpu.py" "$root/tests/core"
}

run_benchmark() {
    local dtype
    for dtype in float16 bfloat16 float32; do
        step "benchmark-$dtype" python -m selfkd_fairseq.cli.benchmark --parts loss training_step --dtype $dtype \
            --rounds 20 --sizes 8192,32000,1024 3584,32000,512 4096,10000,512 --device cuda --output "$output"
    done
}

# On a command line --bf16 asks for a TPU; hydra's common.bf16 does not.
run_trainings() {
    local precision multi30k=$root/examples/translation/multi30k
    for precision in fp16 amp; do
        if [ -n "${MULTI30K:-}" ]; then
            step "multi30k-$precision" bash "$multi30k/train.sh" self_kd "$MULTI30K/bin" \
                "$output/checkpoints/multi30k-$precision" --max-epoch 2 "--$precision" --log-file "$output/multi30k-$precision.json"
        fi
        if [ -n "${PTB:-}" ]; then
            step "ptb-$precision" bash "$root/examples/language_model/ptb/train.sh" tied_small self_kd "$PTB/bin" \
                "$output/checkpoints/ptb-$precision" --max-epoch 1 "--$precision" --log-file "$output/ptb-$precision.json"
        fi
    done
    if [ -n "${MULTI30K:-}" ]; then
        step multi30k-bf16 fairseq-hydra-train --config-dir "$multi30k/config" --config-name multi30k system=self_kd \
            "task.data=$(realpath -m "$MULTI30K/bin")" "hydra.run.dir=$output/checkpoints/multi30k-bf16" \
            "common.log_file=$output/multi30k-bf16.json" common.bf16=true optimization.max_epoch=2
    fi
    if [ -z "${MULTI30K:-}${PTB:-}" ]; then echo "[gpu] trainings: neither MULTI30K nor PTB is given, passed over"; fi
}

# The study on Multi30k, its trainings side by side: they share the one GPU by NVIDIA's MPS, and the host's cores.
run_study() {
    if [ -z "${MULTI30K:-}" ]; then
        echo "[gpu] study: MULTI30K is not given, passed over"
        return
    fi
    local multi30k=$root/examples/translation/multi30k split
    local rows='label_smoothing both both_alone both_others both_shuffled_rows rdrop_1 cross_entropy predicted'
    rows+=' both_late both_late_alone both_late_shuffled_rows both_late_others label_smoothing_71'
    if [ -z "$dry_run" ] && command -v nvidia-cuda-mps-control >/dev/null; then
        CUDA_MPS_PIPE_DIRECTORY=$(mktemp -d) CUDA_MPS_LOG_DIRECTORY=$(mktemp -d)
        export CUDA_MPS_PIPE_DIRECTORY CUDA_MPS_LOG_DIRECTORY
        nvidia-cuda-mps-control -d && trap 'echo quit | nvidia-cuda-mps-control' EXIT
    fi
    step study env OMP_NUM_THREADS=1 SPLITS='valid test' JOBS="${JOBS:-14}" SEEDS="${SEEDS:-1 2 3}" \
        NAMES="${NAMES:-$rows}" \
        bash "$multi30k/search.sh" "$MULTI30K" "$output/runs"
    for split in valid test; do
        step "study-$split" bash -c 'python -m selfkd_fairseq.cli.compare "$1"/*/* --gen-subset "$2" --baseline label_smoothing \
            --references "$3"/raw/"$2".de --lowercase --output "$4"' compare "$output/runs" "$split" "$MULTI30K" "$output/study-$split"
    done
}

setup
export PYTHONPATH="$root${PYTHONPATH:+:$PYTHONPATH}"
for part in "${parts[@]}"; do "run_$part"; done
exit $failed
