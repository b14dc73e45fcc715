# Sourced by the scripts of the examples: paths that are not text alone to fairseq and hydra.

# refuse PART MEANING PATH...: ends the script with status 2 if a path holds the part
refuse() {
    local part=$1 meaning=$2 path
    shift 2
    for path in "$@"; do
        if [[ $path == *"$part"* ]]; then
            echo "${0##*/}: fairseq takes $part in a path for $meaning: rename $path, or give a link to it" >&2
            exit 2
        fi
    done
}

# What fairseq, which hands its flags to hydra, would read as another path than it is.
check_paths() {
    refuse '${' 'the name of a setting' "$@"
    refuse "\\'" 'the end of the path' "$@"
}

# hydra_quote TEXT: the text as a value of hydra's override grammar, by hydra itself
hydra_quote() {
    python -c 'import sys
from hydra.core.override_parser.types import Quote, QuotedString
print(QuotedString(sys.argv[1], Quote.single).with_quotes())' "$1"
}
