"""The two kinds of model that the tests of this folder train, with dropout and rising alpha, and forms of the loss."""

from tests.core.forms import FORMS as FORMS_OF_THE_CORE
from tests.core.forms import flags
from tests.fairseq_setup import TINY_TRANSFORMER
from tests.language_model import TASK, TINY_ZAREMBA

COMMON = [
    "--criterion", "self_kd", "--label-smoothing", "0.1", "--skd-alpha", "0.5", "--skd-warmup-updates", "12",
    "--report-accuracy", "--dropout", "0.2", "--cpu", "--seed", "3", "--update-freq", "2", "--num-workers", "0",
    # The batches of an epoch are made from the seed and that epoch, not from the epoch in which a process started.
    "--update-epoch-batch-itr", "True",
    "--no-epoch-checkpoints", "--no-progress-bar", "--log-format", "json", "--log-interval", "1",
]  # fmt: skip
SYSTEMS = {
    "transformer": [
        *TINY_TRANSFORMER, *COMMON, "--share-all-embeddings", "--max-tokens", "150", "--optimizer", "adam", "--lr",
        "0.005", "--lr-scheduler", "inverse_sqrt", "--warmup-updates", "10", "--clip-norm", "1",
    ],
    "lstm": [
        *TASK, *TINY_ZAREMBA, *COMMON, "--optimizer", "sgd", "--lr", "1", "--lr-scheduler", "fixed", "--clip-norm",
        "0.25",
    ],
}  # fmt: skip
UPDATES_PER_EPOCH = {"transformer": 7, "lstm": 15}
DATA = {"transformer": "tiny_translation", "lstm": "tiny_language_model"}
EMBEDDING = ["--skd-teacher", "embedding"]
STARTS = {"later": 5}  # form -> --skd-start-update, where it is not 0
FORMS = {
    "default": [],  # two passes with dropout, both trained
    "later": ["--skd-start-update", str(STARTS["later"])],  # one pass before, the default from then on
    "train": ["--skd-teacher-mode", "train"],  # a second pass with dropout, forward alone
    "predicted": EMBEDDING,
    "full": [*EMBEDDING, "--skd-support", "full"],
    "nearest": [*EMBEDDING, "--skd-support", "nearest", "--skd-support-size", "4"],  # and --skd-refresh-updates
    "random": [*EMBEDDING, "--skd-support", "random", "--skd-support-size", "4"],
    # A second pass, without dropout: it must leave neither a draw nor a carried state behind.
    "self": flags(FORMS_OF_THE_CORE["full, cosine, self, shuffled, T 2"]),
}
