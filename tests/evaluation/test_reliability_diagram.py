"""What is to be seen in a reliability diagram."""

import io

import numpy as np
import pytest
from matplotlib.image import imread

from selfkd_fairseq.evaluation.calibration import calibrate
from selfkd_fairseq.evaluation.reliability_diagram import draw_reliability_diagram

RED, ORANGE = "red", "orange"


def draw(confidence, right, title="a title"):
    """The picture of 100 tokens of one confidence, of which some are right."""
    correct = np.arange(100) < right
    content = draw_reliability_diagram(calibrate(np.full(100, confidence), correct), [title])
    assert content.startswith(b"\x89PNG")
    return (imread(io.BytesIO(content))[..., :3] * 255).round().astype(int)


def count(picture, colour):
    """Number of pixels of a colour, light or dark: neither gray nor blue, and green as weak as blue, or stronger."""
    red, green, blue = (picture[..., channel] for channel in range(3))
    shade = abs(green - blue) < 15 if colour == RED else green - blue > 30
    return int(((red - blue > 50) & shade).sum())


@pytest.mark.parametrize(("confidence", "right", "seen", "unseen"), [(0.9, 40, RED, ORANGE), (0.3, 90, ORANGE, RED)])
def test_the_gap_is_seen_and_tells_its_side(confidence, right, seen, unseen):
    picture = draw(confidence, right)
    assert count(picture, seen) > 1000 and count(picture, unseen) == 0
    small = draw(confidence, round(100 * confidence) + (-2 if seen is RED else 2))
    assert 0 < count(small, seen) < count(picture, seen) / 4


def test_no_gap_where_there_is_none():
    picture = draw(0.5, 50)
    assert count(picture, RED) == count(picture, ORANGE) == 0


def test_a_title_may_be_long_and_hold_dollars():
    plain = draw(0.5, 50, "run")
    for title in ("$x$ $y", "runs/" * 100):
        assert draw(0.5, 50, title).shape == plain.shape
