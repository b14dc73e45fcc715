"""kill -9 at any moment: the next start finds whole checkpoints, and the training ends as if nothing had happened.

Where fairseq is hardened the next start is the same command; otherwise it is the one that the README tells.
"""

import random
import signal
import time

import pytest

from tests.fairseq_setup import LONG
from tests.resume.processes import KillAtFileEvent, KillInCopy, Run
from tests.resume.systems import DATA, FORMS, SYSTEMS, UPDATES_PER_EPOCH
from tests.resume.trainings import (
    assert_same_checkpoint,
    checkpoint,
    differences,
    logged,
    training_state,
    updates_done,
)

KILLS = 10 if LONG else 3
SEED = 11
# Enough updates for that many kills. By epochs and not by --max-update: after a kill between its last checkpoint and
# its end, fairseq would make one update more than that.
EPOCHS = {"transformer": 9, "lstm": 4} if LONG else {"transformer": 4, "lstm": 2}
CASES = [("transformer", "predicted"), ("transformer", "random"), ("lstm", "predicted"), ("lstm", "nearest")]
if LONG:
    CASES = [(system, form) for system in SYSTEMS for form in FORMS]


def saves_and_epochs(system, form):
    """(flags, number of epochs); a run with ``nearest`` saves at refreshes alone, without which it is not exact."""
    if form != "nearest":
        return ["--save-interval-updates", 2], EPOCHS[system]
    # the least divisor of an epoch: so the checkpoint at its end falls on a refresh, too
    interval = next(n for n in range(2, 100) if UPDATES_PER_EPOCH[system] % n == 0)
    return ["--save-interval-updates", interval, "--skd-refresh-updates", interval], interval * EPOCHS[system]


def lines(path):
    """The number of lines of a file; 0 if there is none."""
    return path.read_bytes().count(b"\n") if path.exists() else 0


def kill_in_copy(run, rng):
    """The system kills it when half of checkpoint_last.pt is copied."""
    return run.start(hook=KillInCopy(run.folder, rng.randint(1, 4)))


def kill_among_files(run, rng):
    """It kills itself at the opening, renaming or removing of a file: most of these are of checkpoint writing."""
    return run.start(hook=KillAtFileEvent(run.folder, rng.randint(1, 40)))


def kill_soon(run, rng):
    """It is killed from outside at a random moment after it has logged something."""
    records = lines(run.log) + rng.randint(1, 6)
    process = run.start()
    while process.is_alive() and lines(run.log) < records:
        time.sleep(0.002)
    time.sleep(rng.uniform(0, 0.05))
    process.kill()
    return process


WAYS = (kill_in_copy, kill_soon, kill_among_files)


@pytest.mark.parametrize("system, form", CASES)
def test_a_run_that_is_killed_again_and_again_ends_as_one_that_is_not(system, form, request, tmp_path):
    rng = random.Random(SEED)
    data, (saves, epochs) = request.getfixturevalue(DATA[system]), saves_and_epochs(system, form)
    flags = (*SYSTEMS[system], *FORMS[form], *saves, "--keep-interval-updates", 1, "--max-epoch", epochs)
    straight, killed = (Run(data, tmp_path / name, flags, hardened=True) for name in ("straight", "killed"))
    straight.finish(straight.start())
    for number in range(KILLS):
        way = WAYS[number % len(WAYS)]
        process = way(killed, rng)
        process.join(240)
        assert process.exitcode in (-signal.SIGKILL, -signal.SIGXFSZ), killed.printed()
        whole = {path.name: updates_done(checkpoint(killed.folder, path.name)) for path in killed.folder.glob("*.pt")}
        print(f"kill {number + 1}, {way.__name__}: checkpoints after updates {whole}")
        # What a kill leaves behind has the name of a checkpoint that is written again, so it does not pile up.
        assert len(list(killed.folder.glob("*.tmp"))) <= 2
    killed.finish(killed.start())

    assert {path.name for path in killed.folder.iterdir()} == {path.name for path in straight.folder.iterdir()}
    for name in ("checkpoint_last.pt", "checkpoint_best.pt"):
        assert_same_checkpoint(straight.folder, killed.folder, name)
    assert logged(killed.log) == logged(straight.log)
    updates = sorted(update for kind, update in logged(killed.log) if kind == "update")
    assert updates == list(range(1, updates_done(checkpoint(killed.folder)) + 1))


SAVES = {
    "checkpoint_1_6.pt": (3, ["--save-interval-updates", 2, "--keep-interval-updates", 1, "--max-epoch", 2]),
    "checkpoint_best.pt": (2, ["--max-epoch", 3]),  # as SYSTEMS save none by epochs
}


@pytest.mark.parametrize("whole", SAVES)
def test_where_fairseq_is_as_it_is_the_checkpoint_of_the_readme_is_whole(whole, tiny_translation, tmp_path):
    """fairseq gives it its name when it is whole, and copies it to checkpoint_last.pt in place."""
    number, saves = SAVES[whole]
    flags = (*SYSTEMS["transformer"], *saves)
    straight, killed = (Run(tiny_translation, tmp_path / name, flags) for name in ("straight", "killed"))
    straight.finish(straight.start())
    process = killed.start(hook=KillInCopy(killed.folder, number))
    process.join(240)
    assert process.exitcode == -signal.SIGXFSZ, killed.printed()
    with pytest.raises((RuntimeError, OSError)):
        checkpoint(killed.folder, "checkpoint_last.pt")
    numbered = sorted(killed.folder.glob("checkpoint_*_*.pt"), key=lambda path: int(path.stem.split("_")[-1]))
    assert [path.name for path in numbered[-1:]] in ([whole], [])
    assert updates_done(checkpoint(killed.folder, whole)) == max(
        update for kind, update in logged(killed.log) if kind == "valid"
    )
    killed.finish(killed.start("--restore-file", killed.folder / whole))
    for name in ("checkpoint_last.pt", "checkpoint_best.pt"):
        ends = [training_state(checkpoint(run.folder, name)) for run in (straight, killed)]
        # at the end of an epoch fairseq saves before the scheduler hears of the validation; this one does not mind
        assert differences(*ends) in ([], ["checkpoint['optimizer_history']['lr_scheduler_state']['best']"])
    straight_log, killed_log = logged(straight.log), logged(killed.log)
    assert killed_log.keys() >= {key for key in straight_log if key[0] != "train"}  # the mean of the epoch of the kill
    assert all(straight_log[key] == record for key, record in killed_log.items())
