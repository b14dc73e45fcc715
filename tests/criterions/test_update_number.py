import pytest

from tests.fairseq_setup import TINY_TRANSFORMER, build


def fconv(data, criterion):
    flags = ["--arch", "fconv", "--encoder-embed-dim", "8", "--decoder-embed-dim", "8"]
    return build(data, *flags, "--criterion", criterion)


def test_an_unsupported_model_ends_the_program_at_the_start_of_training(tiny_translation):
    setup = fconv(tiny_translation, "self_kd")
    with pytest.raises(SystemExit, match="^self_kd cannot take soft targets from FConvModel: .* works"):
        setup.task.begin_epoch(1, setup.model)


def test_a_later_training_with_the_same_task_is_not_looked_at(tiny_translation):
    unsupported = fconv(tiny_translation, "cross_entropy").model
    task = build(tiny_translation, *TINY_TRANSFORMER, "--criterion", "self_kd").task
    with pytest.raises(SystemExit):
        task.begin_epoch(1, unsupported)
    assert "begin_epoch" not in vars(task)
    task.begin_epoch(1, unsupported)  # of a criterion of fairseq's, say


def test_the_next_self_kd_looks_again_and_a_method_of_the_task_object_stays(tiny_translation):
    unsupported = fconv(tiny_translation, "cross_entropy").model
    setup = build(tiny_translation, *TINY_TRANSFORMER, "--criterion", "cross_entropy")
    epochs = []
    setup.task.begin_epoch = own = lambda epoch, model: epochs.append(epoch)
    cfg = build(tiny_translation, *TINY_TRANSFORMER, "--criterion", "self_kd").cfg
    for _ in range(2):
        for _ in range(2):  # a criterion that is built and not used
            setup.task.build_criterion(cfg.criterion)
        with pytest.raises(SystemExit):
            setup.task.begin_epoch(1, unsupported)
        assert setup.task.begin_epoch is own
    setup.task.build_criterion(cfg.criterion)
    setup.task.begin_epoch(1, setup.model)
    setup.task.begin_epoch(2, unsupported)
    assert epochs == [1, 2]
