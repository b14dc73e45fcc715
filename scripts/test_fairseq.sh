#!/usr/bin/env bash
# Run fairseq's own tests without and with this plugin, and compare them test by test: bash scripts/test_fairseq.sh
# Sets up .venv if need be, and takes the tests from fairseq's source package, which pip downloads into
# .venv/fairseq-source; the outcomes are written there too. Takes 20 to 40 minutes on 2 cores.
# Exit status 0 if every test that passes without the plugin passes with it, and the criterion tests pass with self_kd.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
python=$root/.venv/bin/python
folder=$root/.venv/fairseq-source
peer=$root/tests/peer
checkout=$folder/checkout

die() { echo "test_fairseq.sh: $*" >&2; exit 1; }

# What is about translation, language models, training, reproducibility and criterions. Not among them, as the source
# package has not what they import: test_average_checkpoints.py (fairseq's scripts/).
tests=(
    # translation
    test_binaries.py::TestTranslation test_backtranslation_dataset.py test_constraints.py test_inference_dropout.py
    test_noising.py test_online_backtranslation.py test_sequence_generator.py test_sequence_scorer.py test_transformer.py
    # language models
    test_binaries.py::TestLanguageModeling test_lm_context_window.py test_token_block_dataset.py
    test_valid_subset_checks.py
    # training
    test_binaries.py::TestOptimizers test_activation_checkpointing.py test_amp_optimizer.py test_checkpoint_utils.py
    test_checkpoint_utils_for_task_level_attributes.py test_dataset.py test_ema.py test_export.py
    test_fp16_optimizer.py test_iterators.py test_lstm_jitable.py test_memory_efficient_fp16.py test_metrics.py
    test_resampling_dataset.py test_train.py test_utils.py
    # reproducibility
    test_reproducibility.py
    # criterions
    test_label_smoothing.py
)

# The source package as pip gets it, whichever of the two is installed. Without build isolation, because pip asks the package for its metadata, for which fairseq
# imports torch: the installed one will do.
download() {
    local version
    version=$(sed -n 's/^fairseq-fixed==\([^ ;]*\).*/\1/p' "$root/requirements.txt")
    package=$folder/fairseq_fixed-$version.tar.gz
    if [ -f "$package" ]; then return; fi
    echo "[fairseq tests] downloading fairseq's source package"
    mkdir -p "$folder"
    "$python" -m pip download --quiet --disable-pip-version-check --no-input --no-deps --no-build-isolation \
        --no-binary fairseq-fixed --dest "$folder" "fairseq-fixed==$version" >"$folder/download.log" 2>&1 ||
        { tail -n 5 "$folder/download.log" >&2; die "pip could not download fairseq-fixed $version"; }
    [ -f "$package" ] || die "pip downloaded no $package"
}

# A folder like a checkout of fairseq, but without fairseq/: that is the installed one, which is compiled.
unpack() {
    local installed
    rm -rf "$checkout" "$folder/package"
    mkdir -p "$checkout" "$folder/package"
    tar -xzf "$package" -C "$folder/package" --strip-components=1
    mv "$folder/package/tests" "$checkout/tests"
    rm -r "$folder/package"
    touch "$checkout/tests/__init__.py"
    cp "$peer/fairseq_test_utils.py" "$checkout/tests/utils.py"
    cp "$peer/self_kd_in_place.py" "$checkout/tests/"
    cp "$peer/fairseq_conftest.py" "$checkout/conftest.py"
    installed=$("$python" -c 'import fairseq, os; print(os.path.dirname(fairseq.__file__))')
    ln -s "$installed/examples" "$checkout/examples"
    echo '[pytest]' >"$checkout/pytest.ini" # else pytest would read this project's settings
}

# run_tests NAME PYTEST_ARGUMENTS...: outcomes in $folder/NAME.xml. A test that fails is no error here.
run_tests() {
    local name=$1 status=0
    shift
    echo "[fairseq tests ${SECONDS} s] $name"
    (
        cd "$checkout"
        # `python -m` puts the current folder first, so that `tests` is fairseq's and not this project's
        PYTHONPATH=$root:$peer "$python" -m pytest -c pytest.ini -p no:cacheprovider -W ignore --quiet --tb=no -rN \
            --continue-on-collection-errors --junitxml="$folder/$name.xml" "$@"
    ) || status=$?
    [ "$status" -le 1 ] || die "pytest ended with $status"
    return "$status"
}

bash "$root/scripts/setup.sh"
download
unpack
rm -f "$folder"/*.xml "$folder/outcomes.md"
failed=0
run_tests alone "${tests[@]/#/tests/}" || true
run_tests namespace_allowed -p namespace_allowed "${tests[@]/#/tests/}" || true
run_tests with_plugin -p plugin_registered "${tests[@]/#/tests/}" || true
run_tests self_kd_in_place -p plugin_registered tests/self_kd_in_place.py || failed=1
"$python" "$peer/compare_outcomes.py" alone="$folder/alone.xml" namespace_allowed="$folder/namespace_allowed.xml" \
    with_plugin="$folder/with_plugin.xml" >"$folder/outcomes.md" || failed=1
cat "$folder/outcomes.md"
echo "[fairseq tests ${SECONDS} s] written: $folder/outcomes.md"
[ "$failed" = 0 ] || die "a test does not pass with the plugin, see above"
