"""Cutting a corpus into streams and windows."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from selfkd_fairseq.tasks.stream_windows import (
    Streams,
    TokenStream,
    WindowedStreams,
    fixed_windows,
    variable_windows,
)

PAD = 1


def windows_of(num_tokens, per_worker, worker, workers, bounds_of):
    stream = TokenStream(np.arange(10, 10 + num_tokens, dtype=np.int32))
    streams = Streams(total=per_worker * workers, first=per_worker * worker, count=per_worker)
    return WindowedStreams(stream, streams, bounds_of(streams.length(num_tokens)), PAD)


@settings(max_examples=200, deadline=None)
@given(
    num_tokens=st.integers(2, 400), per_worker=st.integers(1, 5), workers=st.integers(1, 3), length=st.integers(1, 50)
)
def test_every_token_but_the_first_is_a_target_once(num_tokens, per_worker, workers, length):
    seen, ntokens = [], 0
    for worker in range(workers):
        windows = windows_of(num_tokens, per_worker, worker, workers, lambda end: fixed_windows(end, length))
        for batch in (windows[i] for i in range(len(windows))):
            inputs, targets = batch["net_input"]["src_tokens"], batch["target"]
            assert inputs.shape == targets.shape and inputs.size(1) <= length and inputs.size(0) == per_worker
            counts = targets.ne(PAD)
            # token number n carries the id 10 + n, so what comes after an input is the input plus one
            assert torch.equal(targets[counts], inputs[counts] + 1)
            assert torch.equal(inputs.ne(PAD), counts)
            seen += targets[counts].tolist()
            ntokens += batch["ntokens"]
    assert sorted(seen) == list(range(11, 10 + num_tokens))
    assert ntokens == num_tokens - 1


def test_a_window_goes_on_where_the_last_one_ended():
    windows = windows_of(101, 4, 0, 1, lambda end: fixed_windows(end, 7))
    rows = [[] for _ in range(4)]
    for i in range(len(windows)):
        assert windows[i]["net_input"]["starts_stream"] is (i == 0)
        for row, part in zip(rows, windows[i]["net_input"]["src_tokens"].tolist()):
            row += part
    # 100 predictions in 4 streams of 25, by hand
    assert rows == [list(range(10 + 25 * s, 35 + 25 * s)) for s in range(4)]
    assert [windows.size(i) for i in range(len(windows))] == [7, 7, 7, 4]
    assert windows.num_tokens(3) == 16


def test_workers_have_streams_of_their_own():
    """Two workers with 2 streams each read what one worker with 4 streams reads."""
    one = windows_of(57, 4, 0, 1, lambda end: fixed_windows(end, 5))
    two = [windows_of(57, 2, worker, 2, lambda end: fixed_windows(end, 5)) for worker in (0, 1)]
    for i in range(len(one)):
        for key in ("target", "id"):
            assert torch.equal(one[i][key], torch.cat([two[0][i][key], two[1][i][key]]))
        parts = [worker[i]["net_input"]["src_tokens"] for worker in two]
        assert torch.equal(one[i]["net_input"]["src_tokens"], torch.cat(parts))


def test_variable_windows_are_those_of_awd_lstm():
    bounds = np.array(variable_windows(1_000_000, 70, seed=1, epoch=1))
    lengths = np.diff(bounds)
    assert bounds[0] == 0 and bounds[-1] == 1_000_000
    assert lengths[:-1].min() >= 5
    long, short = lengths[lengths > 52], lengths[lengths <= 52]
    # int() cuts towards zero, so the means are half a token below 70 and 35
    assert long.mean() == pytest.approx(69.5, abs=0.3) and long.std() == pytest.approx(5, abs=0.3)
    assert short.mean() == pytest.approx(34.5, abs=1.5)
    assert len(short) / len(lengths) == pytest.approx(0.05, abs=0.01)


def test_variable_windows_depend_on_seed_and_epoch_alone():
    first = variable_windows(5000, 20, seed=3, epoch=2)
    np.random.seed(0)
    torch.manual_seed(7)
    assert variable_windows(5000, 20, seed=3, epoch=2) == first
    assert variable_windows(5000, 20, seed=3, epoch=3) != first
    assert variable_windows(5000, 20, seed=4, epoch=2) != first


def test_lines_are_joined_in_a_small_type():
    class Lines:
        sizes = np.array([3, 1, 2])

        def __len__(self):
            return 3

        def __getitem__(self, i):
            return [torch.tensor([4, 5, 2]), torch.tensor([2]), torch.tensor([70000 % 65536, 2])][i]

    small, large = (TokenStream.of_lines(Lines(), size) for size in (10002, 70000))
    assert small.tokens.dtype == np.uint16 and large.tokens.dtype == np.int32
    assert small.tokens.tolist() == large.tokens.tolist() == [4, 5, 2, 2, 4464, 2]
    assert len(small) == 6
