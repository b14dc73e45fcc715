import pytest

from selfkd_fairseq.core import alpha_at_update


@pytest.mark.parametrize(
    "num_updates, expected",
    [(0, 0.0), (1, 0.125), (2, 0.25), (4, 0.5), (5, 0.5), (10**9, 0.5)],
)
def test_linear_ramp_to_the_cap(num_updates, expected):
    assert alpha_at_update(num_updates, alpha_max=0.5, warmup_updates=4) == expected


def test_no_warmup_is_the_cap_at_once():
    assert alpha_at_update(0, alpha_max=0.3, warmup_updates=0) == 0.3


@pytest.mark.parametrize("warmup, expected", [(0, [0, 0, 0.5, 0.5, 0.5]), (2, [0, 0, 0, 0.25, 0.5])])
def test_it_is_0_before_its_start(warmup, expected):
    found = [alpha_at_update(u, alpha_max=0.5, warmup_updates=warmup, start_update=7) for u in (0, 6, 7, 8, 9)]
    assert found == expected


@pytest.mark.parametrize(
    "arguments, named",
    [
        (dict(num_updates=0, alpha_max=1.5, warmup_updates=1), "alpha must be in [0, 1], got 1.5"),
        (dict(num_updates=0, alpha_max=float("nan"), warmup_updates=1), "alpha must be in [0, 1], got nan"),
        (dict(num_updates=0, alpha_max=0.5, warmup_updates=-1), "warmup_updates must be at least 0, got -1"),
        (
            dict(num_updates=0, alpha_max=0.5, warmup_updates=1, start_update=-3),
            "start_update must be at least 0, got -3",
        ),
        (dict(num_updates=-2, alpha_max=0.5, warmup_updates=1), "num_updates must be at least 0, got -2"),
    ],
)
def test_out_of_range(arguments, named):
    with pytest.raises(ValueError) as error:
        alpha_at_update(**arguments)
    assert str(error.value) == named
