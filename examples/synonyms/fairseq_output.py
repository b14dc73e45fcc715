"""Read what fairseq writes: the JSON training log and the output of fairseq-generate."""

from pathlib import Path
from typing import Dict, List, NamedTuple, Tuple

from selfkd_fairseq.evaluation.training_log import log_records

__all__ = ["TrainingCurves", "read_training_log", "read_translations"]


class TrainingCurves(NamedTuple):
    """Curves of one run, each a list of (update number, value), in the order of the updates.

    Attributes:
        valid_nll: negative log-likelihood on the validation set, bits per token.
        alpha: weight of the distillation term; empty for criterions that have none.
    """

    valid_nll: List[Tuple[int, float]]
    alpha: List[Tuple[int, float]]


def read_training_log(path: Path) -> TrainingCurves:
    """Curves from a log made with ``--log-format json --log-file``; empty curves if the file is not there yet.

    fairseq adds one more handler to its log file with every epoch, so each record occurs many times: the update
    number tells them apart.
    """
    valid_nll: Dict[int, float] = {}
    alpha: Dict[int, float] = {}
    text = path.read_text(encoding="utf-8") if path.exists() else ""
    for record in log_records(text):
        if "valid_num_updates" in record:
            # cross_entropy logs no nll_loss of its own: there it is the loss itself
            nll = record.get("valid_nll_loss", record["valid_loss"])
            valid_nll[int(record["valid_num_updates"])] = float(nll)
        elif "alpha" in record and "num_updates" in record:
            alpha[int(record["num_updates"])] = float(record["alpha"])
    return TrainingCurves(sorted(valid_nll.items()), sorted(alpha.items()))


def read_translations(path: Path) -> Dict[int, str]:
    """Sentence number in the test set -> best hypothesis, from the lines ``H-<number>\\t<score>\\t<words>``."""
    hypotheses: Dict[int, str] = {}
    if not path.exists():
        return hypotheses
    for line in path.read_text(encoding="utf-8").splitlines():
        parts = line.split("\t")
        if line.startswith("H-") and len(parts) == 3:
            hypotheses[int(parts[0][2:])] = parts[2]
    return hypotheses
