import pytest
import torch

from selfkd_fairseq.core import SelfKDOptions, nearest_words
from selfkd_fairseq.criterions.support_state import SupportState


def state(support="nearest", refresh_updates=10, seed=1):
    return SupportState(SelfKDOptions(support, 2), (0, 1), refresh_updates, seed)


def test_neighbours_are_refreshed_at_multiples_and_at_the_first_update_of_a_process():
    generator = torch.Generator().manual_seed(0)
    matrices = [torch.randn(12, 3, generator=generator) for _ in range(30)]
    fresh = [nearest_words(matrix, torch.arange(12), 2, (0, 1)) for matrix in matrices]
    kept, weight = state(), torch.empty(12, 3)  # one parameter, which the optimizer changes in place
    for update in range(7, 25):
        weight.copy_(matrices[update])
        kept.set_num_updates(update)
        for _ in range(2):  # two batches of one update
            expected = 7 if update < 10 else update - update % 10
            assert torch.equal(kept.neighbours(weight), fresh[expected]), update


def test_a_process_that_starts_at_a_refresh_goes_on_like_the_one_that_did_not_stop():
    matrices = [torch.randn(12, 3, generator=torch.Generator().manual_seed(i)) for i in range(30)]
    straight, resumed, weight = state(), state(), torch.empty(12, 3)
    for update in range(25):
        weight.copy_(matrices[update])
        straight.set_num_updates(update)
        first = straight.neighbours(weight)
        if update >= 20:
            resumed.set_num_updates(update)
            assert torch.equal(first, resumed.neighbours(weight))


def test_only_nearest_has_neighbours():
    assert state("full").neighbours(torch.zeros(5, 2)) is None


def draws(support_state, update, training=True):
    support_state.set_num_updates(update)
    return [torch.rand(4, generator=support_state.generator(training)).tolist() for _ in range(3)]


def test_random_draws_depend_on_seed_and_update_alone():
    assert draws(state(seed=1), 5) == draws(state(seed=1), 5)
    assert draws(state(seed=1), 5) != draws(state(seed=2), 5)
    assert draws(state(seed=1), 5) != draws(state(seed=1), 6)
    one = state(seed=1)
    draws(one, 4)
    assert draws(one, 5) == draws(state(seed=1), 5)


def test_what_a_validation_draws_does_not_follow_from_what_the_training_drew():
    one = state(seed=1)
    trained = draws(one, 5)
    validated = draws(one, 5, training=False)
    assert validated == draws(state(seed=1), 5, training=False) != trained
    assert draws(state(seed=1), 6, training=False) != validated


def test_refresh_updates_below_one_is_named():
    with pytest.raises(ValueError, match="refresh_updates must be at least 1, got 0"):
        state(refresh_updates=0)
