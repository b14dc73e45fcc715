"""2N updates straight are N updates, a fresh process, N more: bit-equal, for every form, on both kinds of model."""

import pytest

from tests.resume.processes import Run
from tests.resume.systems import DATA, FORMS, STARTS, SYSTEMS, UPDATES_PER_EPOCH
from tests.resume.trainings import assert_same_checkpoint, checkpoint, logged, updates_done

N = 9
REFRESH = ["--skd-refresh-updates", "3"]  # 3 divides N


@pytest.mark.parametrize("form", list(FORMS))
@pytest.mark.parametrize("system", list(SYSTEMS))
def test_resume_in_mid_epoch_that_goes_on_into_the_next_epoch_is_bit_equal(system, form, request, tmp_path):
    data = request.getfixturevalue(DATA[system])
    flags = (*SYSTEMS[system], *FORMS[form], *REFRESH, "--save-interval-updates", N, "--max-update", 2 * N)
    straight, resumed = Run(data, tmp_path / "straight", flags), Run(data, tmp_path / "resumed", flags)
    straight.finish(straight.start())
    (half,) = straight.folder.glob(f"checkpoint_*_{N}.pt")
    resumed.finish(resumed.start("--restore-file", half))

    epoch = UPDATES_PER_EPOCH[system]
    assert N % epoch != 0 and N // epoch < (2 * N - 1) // epoch  # cut in mid-epoch; the rest reaches into another
    for name in ("checkpoint_last.pt", "checkpoint_best.pt"):
        assert_same_checkpoint(straight.folder, resumed.folder, name)
    assert updates_done(checkpoint(resumed.folder)) == 2 * N

    one, two = logged(straight.log), logged(resumed.log)
    assert [update for kind, update in one if kind == "update"] == list(range(1, 2 * N + 1))
    assert [update for kind, update in two if kind == "update"] == list(range(N + 1, 2 * N + 1))
    assert two == {key: record for key, record in one.items() if key[1] > N}
    # alpha of an update is that of the number of updates done before it; it still rises at the cut.
    alphas = [float(record["alpha"]) for (kind, _), record in one.items() if kind == "update"]
    start = STARTS.get(form, 0)
    assert alphas == pytest.approx([0.5 * min(1, max(0, done - start) / 12) for done in range(2 * N)], abs=1e-5)
