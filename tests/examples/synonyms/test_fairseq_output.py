"""Reading fairseq's log and translations, from text as fairseq writes it."""

from examples.synonyms.fairseq_output import read_training_log, read_translations

# each record twice, as fairseq writes it from its second epoch on, and a line that is still being written
SELF_KD_LOG = """\
{"epoch": 1, "update": 0.6, "loss": "9.1", "nll_loss": "9.1", "alpha": "0.125", "num_updates": "20"}
{"epoch": 1, "valid_loss": "7.9", "valid_nll_loss": "7.5", "valid_ppl": "181", "valid_num_updates": "30"}
{"epoch": 1, "train_loss": "8.1", "train_alpha": "0.18", "train_num_updates": "30"}
{"epoch": 2, "update": 1.3, "loss": "7.1", "nll_loss": "7.1", "alpha": "0.25", "num_updates": "40"}
{"epoch": 2, "update": 1.3, "loss": "7.1", "nll_loss": "7.1", "alpha": "0.25", "num_updates": "40"}
{"epoch": 2, "valid_loss": "6.9", "valid_nll_loss": "6.25", "valid_ppl": "76.1", "valid_num_updates": "60"}
{"epoch": 2, "valid_loss": "6.9", "valid_nll_loss": "6.25", "valid_ppl": "76.1", "valid_num_updates": "60"}
{"epoch": 3, "valid_loss": "6.1", "valid_nl"""


def test_read_training_log(tmp_path):
    path = tmp_path / "log.json"
    path.write_text(SELF_KD_LOG)
    curves = read_training_log(path)
    assert curves.valid_nll == [(30, 7.5), (60, 6.25)]
    assert curves.alpha == [(20, 0.125), (40, 0.25)]


def test_cross_entropy_logs_its_nll_as_loss(tmp_path):
    path = tmp_path / "log.json"
    path.write_text('[2026-01-01 00:00:00] {"epoch": 1, "valid_loss": "7.5", "valid_num_updates": "30"}\n')
    assert read_training_log(path).valid_nll == [(30, 7.5)]
    assert read_training_log(path).alpha == []


def test_no_log_yet(tmp_path):
    assert read_training_log(tmp_path / "log.json") == ([], [])
    assert read_translations(tmp_path / "generate.out") == {}


def test_read_translations(tmp_path):
    path = tmp_path / "generate.out"
    path.write_text(
        "2026 | INFO | H-something\nS-1\tthe man .\nT-1\tder Mann .\nH-1\t-0.25\tder Mann .\n"
        "D-1\t-0.25\tder Mann .\nP-1\t-0.1 -0.4\nS-0\tthe .\nT-0\tder .\nH-0\t-1.5\t\nD-0\t-1.5\t\nP-0\t-1.5\n",
    )
    assert read_translations(path) == {1: "der Mann .", 0: ""}
