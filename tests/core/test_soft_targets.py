import math

import pytest
import torch

from selfkd_fairseq.core import (
    CONTROLS,
    IMPLEMENTATIONS,
    NORMALISATIONS,
    SIMILARITIES,
    SUPPORTS,
    TEACHERS,
    SelfKDOptions,
    nearest_words,
    rms_distance,
    self_kd_loss,
    soft_targets,
)
from selfkd_fairseq.core.soft_targets import make_shuffle
from selfkd_fairseq.core.supports import largest, random_words
from tests import definition
from tests.core.chance import drawn_words, permutation
from tests.core.forms import FORMS

# Rows at 0, 3, 4, 5 and 12 from row 0, so that every distance to it can be read off.
WEIGHT = torch.tensor([[0.0, 0.0], [3.0, 0.0], [0.0, 4.0], [3.0, 4.0], [12.0, 0.0]], dtype=torch.float64)


def scores_that_predict(words, vocabulary=5):
    scores = torch.zeros(len(words), vocabulary, dtype=torch.float64)
    scores[torch.arange(len(words)), torch.tensor(words)] = 1.0
    return scores


def test_two_words_by_hand_absolute():
    # target 0, prediction 1 at distance 3, tau = 2: q_target = sigmoid(3 / 2) = 0.817574476193644
    options = SelfKDOptions(temperature=2.0, temperature_scale="absolute")
    q = soft_targets(scores_that_predict([1]), WEIGHT, torch.tensor([0]), options)
    assert q.indices.tolist() == [[0, 1]]
    assert q.measures.tolist() == [[0.0, 3.0]]
    assert q.probs.tolist()[0] == pytest.approx([0.8175744761936437, 0.1824255238063563], abs=1e-15)


def test_two_words_by_hand_relative():
    # mean ||w||^2 = (0 + 9 + 16 + 25 + 144) / 5 = 38.8, mean w = (3.6, 1.6), ||mean||^2 = 15.52,
    # D_rms = sqrt(2 * 23.28) = 6.823488843692793; target 0, prediction 3 at distance 5, tau = 0.5
    assert rms_distance(WEIGHT).item() == pytest.approx(6.823488843692793, abs=1e-14)
    q = soft_targets(scores_that_predict([3]), WEIGHT, torch.tensor([0]), SelfKDOptions(temperature=0.5))
    expected = 1 / (1 + math.exp(-5 / (0.5 * 6.823488843692793)))
    assert q.probs.tolist()[0] == pytest.approx([expected, 1 - expected], abs=1e-15)


def test_gaussian_by_hand():
    # target 0, prediction 1 at distance 3, tau = 2: q_target = sigmoid(9 / 8)
    options = SelfKDOptions(temperature=2.0, temperature_scale="absolute", similarity="gaussian")
    q = soft_targets(scores_that_predict([1]), WEIGHT, torch.tensor([0]), options)
    assert q.probs.tolist()[0] == pytest.approx([0.7549149868676283, 0.24508501313237172], abs=1e-15)


@pytest.mark.parametrize("scale", ["relative", "absolute"])
def test_cosine_by_hand(scale):
    # Rows less their mean: (2, 1), (-1, 2), (-1, -3). Cosines of the first: 0 and -5 / sqrt(50).
    weight = torch.tensor([[5.0, 3.0], [2.0, 4.0], [2.0, -1.0]], dtype=torch.float64)
    options = SelfKDOptions("full", temperature=0.5, temperature_scale=scale, similarity="cosine", min_target_prob=0.0)
    q = soft_targets(None, weight, torch.tensor([0]), options)
    shares = [math.exp(2 * cosine) for cosine in (1.0, 0.0, -5 / math.sqrt(50))]
    assert q.measures[0, 1:].tolist() == pytest.approx([1.0, 0.0, -5 / math.sqrt(50)], abs=1e-15)
    expected = [share / sum(shares) for share in shares]
    assert [float(q.probs[0, 0]), *q.probs[0, 2:].tolist()] == pytest.approx(expected, abs=1e-15)


@pytest.mark.parametrize("support", ["nearest", "full"])
@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_the_cosine_of_a_target_with_itself_is_1_even_if_its_row_is_the_mean(support, implementation):
    weight = torch.tensor([[1.0, 0.0], [-1.0, 0.0], [0.0, 2.0], [0.0, -2.0], [0.0, 0.0]])
    result = self_kd_loss(
        torch.zeros(1, 2), weight, torch.tensor([4]), alpha=0.5, similarity="cosine", support=support, support_size=4,
        min_target_prob=0.0, implementation=implementation,
    )  # fmt: skip
    assert result.statistics.target_prob.item() == pytest.approx(math.e / (math.e + 4), rel=1e-6)
    assert result.statistics.measure.item() == 0.0


@pytest.mark.parametrize("temperature", [1.0, 2.0])
@pytest.mark.parametrize("weight_of_embedding", [0.0, 0.5])
def test_the_teacher_self_by_hand(temperature, weight_of_embedding):
    # target 0, the words 1 and 3 at distance 3 and 5, tau = 2; logits without dropout: 1, 2 and 0 for them.
    options = SelfKDOptions(
        support_size=2, temperature=2.0, temperature_scale="absolute", min_target_prob=0.0, teacher="self",
        student_temperature=temperature, embedding_weight=weight_of_embedding,
    )  # fmt: skip
    scores = torch.tensor([[0.0, 2.0, 0.0, 1.0, 0.0]], dtype=torch.float64)
    teacher = torch.tensor([[1.0, 2.0, 7.0, 0.0, 7.0]], dtype=torch.float64)
    q = soft_targets(scores, WEIGHT, torch.tensor([0]), options, teacher_scores=teacher)
    shares = [math.exp(z / temperature - weight_of_embedding * d / 2) for z, d in ((1, 0), (2, 3), (0, 5))]
    assert q.indices.tolist() == [[0, 1, 3]]
    assert q.probs.tolist()[0] == pytest.approx([share / sum(shares) for share in shares], abs=1e-15)
    assert (q.measures is None) == (weight_of_embedding == 0)


def test_the_teacher_self_needs_its_logits():
    options = SelfKDOptions(teacher="self")
    with pytest.raises(ValueError, match="the teacher self needs the logits of another pass"):
        soft_targets(scores_that_predict([1]), WEIGHT, torch.tensor([0]), options)
    # Uniform targets are nobody's knowledge.
    uniform = options._replace(control="uniform")
    q = soft_targets(scores_that_predict([1]), WEIGHT, torch.tensor([0]), uniform)
    assert q.probs.tolist() == [[0.5, 0.5]] and q.measures is None


def test_predicted_target_is_one_hot():
    q = soft_targets(scores_that_predict([2]), WEIGHT, torch.tensor([2]), SelfKDOptions())
    assert q.probs.tolist() == [[1.0, 0.0]]
    assert q.valid.tolist() == [[True, False]]


def test_rms_distance_is_that_of_all_pairs_of_rows():
    weight = torch.randn(7, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1)) + 100.0
    pairs = [(a - b).pow(2).sum().item() for a in weight for b in weight]
    assert rms_distance(weight).item() == pytest.approx(math.sqrt(sum(pairs) / len(pairs)), rel=1e-12)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("n", [1, 3, 8])
@pytest.mark.parametrize("scale", ["relative", "absolute"])
@pytest.mark.parametrize("floor", [0.0, 0.5, 0.9, 1.0])
def test_equals_the_definition(form, n, scale, floor):
    generator = torch.Generator().manual_seed(n)
    weight = torch.randn(11, 4, dtype=torch.float64, generator=generator)
    scores, teacher = (torch.randn(20, 11, dtype=torch.float64, generator=generator) for _ in range(2))
    target = torch.randint(0, 11, (20,), generator=generator)
    chosen = dict(FORMS[form], support_size=n, temperature=0.7, temperature_scale=scale, min_target_prob=floor)
    options, excluded = SelfKDOptions(**chosen), (0, 1)
    drawn = drawn_words(options.support, weight, target, n, excluded, seed=4)
    q = soft_targets(
        scores, weight, target, options, excluded, teacher_scores=teacher, generator=torch.Generator().manual_seed(4)
    )
    assert q.probs.sum(dim=1).tolist() == pytest.approx([1.0] * 20, abs=1e-14)
    space, words = definition.Space(weight.numpy()), permutation(FORMS[form], 11, excluded)
    for i in range(20):
        token = definition.Token(
            int(target[i]), scores[i].numpy(), teacher[i].numpy(), frozenset(excluded), drawn and drawn[i], words
        )
        expected = definition.row_of(token, space, definition.Options(**chosen))
        found = {int(k): float(p) for k, p, v in zip(q.indices[i], q.probs[i], q.valid[i]) if v}
        assert found == pytest.approx({int(k): expected.probs[k] for k in expected.support.nonzero()[0]}, abs=1e-14)
        assert found[int(target[i])] >= floor - 1e-15
        measures = [] if q.measures is None else q.measures[i, 1:][q.valid[i, 1:]].tolist()
        assert sorted(measures) == pytest.approx(sorted(expected.measures), abs=1e-14)


def test_excluded_words_are_only_ever_targets():
    scores = torch.tensor([[9.0, 8.0, 1.0, 2.0, 3.0]] * 5, dtype=torch.float64)
    target = torch.arange(5)
    # n = 4 asks for more words than are left: the rest of the columns must be invalid, not padding.
    q = soft_targets(scores, WEIGHT, target, SelfKDOptions(support_size=4, min_target_prob=0.0), excluded=(0, 1))
    for i in range(5):
        words = {int(k) for k, v in zip(q.indices[i], q.valid[i]) if v}
        assert words == {i, 2, 3, 4}
        assert all(float(p) == 0.0 for p, v in zip(q.probs[i], q.valid[i]) if not v)


@pytest.mark.parametrize("factor", [1e-3, 7.0, 1e4])
def test_relative_temperature_ignores_the_scale_of_the_embedding(factor):
    scores, target = scores_that_predict([1, 2, 4]), torch.tensor([0, 1, 3])
    plain = soft_targets(scores, WEIGHT, target, SelfKDOptions()).probs
    scaled = soft_targets(scores, WEIGHT * factor, target, SelfKDOptions()).probs
    assert torch.allclose(plain, scaled, atol=1e-14, rtol=0)


def test_equal_rows_give_equal_shares():
    weight = torch.full((6, 3), 2.5)
    scores, target = torch.arange(6.0).expand(1, 6), torch.tensor([0])  # the target is the least probable word
    q = soft_targets(scores, weight, target, SelfKDOptions(support_size=3, min_target_prob=0.0))
    assert q.probs.tolist() == [[0.25, 0.25, 0.25, 0.25]]
    q = soft_targets(scores, weight, target, SelfKDOptions(support_size=3))
    assert q.probs[0].tolist() == pytest.approx([0.5, 1 / 6, 1 / 6, 1 / 6])  # the floor decides


def test_nearer_words_get_more():
    scores = torch.tensor([[0.0, 1.0, 2.0, 3.0, 4.0]], dtype=torch.float64)
    q = soft_targets(scores, WEIGHT, torch.tensor([0]), SelfKDOptions(support_size=4))
    order = q.measures[0].argsort()
    assert q.measures[0][order].tolist() == [0.0, 3.0, 4.0, 5.0, 12.0]
    probs = q.probs[0][order].tolist()
    assert probs == sorted(probs, reverse=True) and len(set(probs)) == 5


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_weights_are_reduced_in_float32(dtype):
    q = soft_targets(scores_that_predict([1, 3]), WEIGHT.to(dtype), torch.tensor([0, 0]), SelfKDOptions())
    exact = soft_targets(scores_that_predict([1, 3]), WEIGHT, torch.tensor([0, 0]), SelfKDOptions())
    assert q.probs.dtype == torch.float32
    # These rows are exact in half precision, so only float32 rounding is left.
    assert torch.allclose(q.probs.double(), exact.probs, atol=1e-6, rtol=0)


def test_no_gradient_flows_through_soft_targets():
    weight = WEIGHT.clone().requires_grad_()
    scores = scores_that_predict([1]).requires_grad_()
    q = soft_targets(scores, weight, torch.tensor([0]), SelfKDOptions())
    assert not q.probs.requires_grad and not q.measures.requires_grad


def test_nan_in_the_embedding_is_not_hidden():
    weight = WEIGHT.clone()
    weight[1, 0] = math.nan
    q = soft_targets(scores_that_predict([1]), weight, torch.tensor([0]), SelfKDOptions())
    assert q.probs.isnan().any()


@pytest.mark.parametrize(
    "options, message",
    [
        (dict(support="nearby"), f"support must be one of {', '.join(SUPPORTS)}, got 'nearby'"),
        (dict(support_size=0), "support_size must be at least 1, got 0"),
        (dict(support_size=5), "support_size must be less than the vocabulary size 5, got 5"),
        (dict(temperature=0.0), "temperature must be above 0 and finite, got 0.0"),
        (dict(temperature=math.inf), "temperature must be above 0 and finite, got inf"),
        (dict(temperature=math.nan), "temperature must be above 0 and finite, got nan"),
        (dict(similarity="dot"), f"similarity must be one of {', '.join(SIMILARITIES)}, got 'dot'"),
        (dict(teacher="parent"), f"teacher must be one of {', '.join(TEACHERS)}, got 'parent'"),
        (dict(normalise="words"), f"normalise must be one of {', '.join(NORMALISATIONS)}, got 'words'"),
        (dict(control="placebo"), f"control must be one of {', '.join(CONTROLS)}, got 'placebo'"),
        (dict(embedding_weight=-0.5), "embedding_weight must be in [0, 1000], got -0.5"),
        (dict(embedding_weight=1e4), "embedding_weight must be in [0, 1000], got 10000.0"),
        (dict(embedding_weight=math.nan), "embedding_weight must be in [0, 1000], got nan"),
        (dict(student_temperature=0.0), "student_temperature must be in [0.001, 1000], got 0.0"),
        (dict(student_temperature=1e300), "student_temperature must be in [0.001, 1000], got 1e+300"),
        (dict(student_temperature=math.nan), "student_temperature must be in [0.001, 1000], got nan"),
        (dict(temperature_scale="log"), "temperature_scale must be one of relative, absolute, got 'log'"),
        (dict(min_target_prob=-0.1), "min_target_prob must be in [0, 1], got -0.1"),
        (dict(min_target_prob=1.1), "min_target_prob must be in [0, 1], got 1.1"),
    ],
)
def test_bad_options_are_named(options, message):
    with pytest.raises(ValueError) as error:
        SelfKDOptions(**options).check(vocabulary_size=5)
    assert str(error.value) == message


def counts_of_random_words(target, n=2, vocabulary=8, excluded=(0, 1), draws=20000):
    words = random_words(
        torch.full((draws,), target), vocabulary, n, excluded, torch.Generator().manual_seed(5)
    )  # fmt: skip
    assert words.shape == (draws, n)
    assert all((words[:, i] != words[:, j]).all() for i in range(n) for j in range(i))
    return torch.bincount(words.flatten(), minlength=vocabulary).tolist()


@pytest.mark.parametrize("target", [0, 2, 5, 7])
@pytest.mark.parametrize("n", [1, 2, 4])
def test_random_words_are_uniform_over_the_words_that_may_be_drawn(target, n):
    counts = counts_of_random_words(target, n)
    allowed = [word for word in range(2, 8) if word != target]
    assert all(counts[word] == 0 for word in range(8) if word not in allowed)
    expected = 20000 * n / len(allowed)
    # Five standard deviations of a binomial count.
    bound = 5 * math.sqrt(20000 * (n / len(allowed)) * (1 - n / len(allowed)) + 1)
    assert all(abs(counts[word] - expected) < bound for word in allowed)


def test_random_words_repeat_with_the_generator():
    target = torch.randint(0, 50, (30,))
    one, two, other = (random_words(target, 50, 3, (0,), torch.Generator().manual_seed(s)) for s in (1, 1, 2))
    assert torch.equal(one, two) and not torch.equal(one, other)


@pytest.mark.parametrize("offset", [0.0, 100.0])
def test_nearest_words_by_brute_force(offset):
    weight = torch.randn(40, 5, generator=torch.Generator().manual_seed(2)) + offset
    found = nearest_words(weight, torch.arange(40), 4, (0, 7), chunk_size=9)
    for word in range(40):
        assert found[word].tolist() == definition.nearest(weight.double().numpy(), word, 4, {0, 7}), word


@pytest.mark.parametrize("vocabulary", [5, 127, 128, 129, 520, 640, 2000])
@pytest.mark.parametrize("n", [1, 2, 4])
@pytest.mark.parametrize("levels", [3, 1000])  # few: many words are equal
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
def test_largest_by_sorting(vocabulary, n, levels, dtype):
    scores = torch.randint(levels, (40, vocabulary), generator=torch.Generator().manual_seed(0)).to(dtype)
    scores[0] = -math.inf
    scores[1, ::2] = math.inf
    values, words = largest(scores, n)
    assert torch.equal(values, scores.sort(dim=1, descending=True).values[:, :n])
    assert torch.equal(scores.gather(1, words), values)
    assert all(len(set(row)) == n for row in words.tolist())
    if n == 1:
        assert torch.equal(words[:, 0], scores.argmax(dim=1))


@pytest.mark.parametrize("n", [1, 2])
def test_largest_does_not_hide_nan(n):
    scores = torch.zeros(3, 700)
    scores[0, 650] = scores[1, 3] = math.nan
    values, words = largest(scores, n)
    assert values[:2, 0].isnan().all() and words[:2, 0].tolist() == [650, 3] and values[2].tolist() == [0.0] * n


def test_nearest_words_leave_out_the_word_and_the_excluded_until_nothing_else_is_left():
    found = nearest_words(WEIGHT, torch.arange(5), 4, (1,))
    for word in range(5):
        assert set(found[word].tolist()[: 3 if word != 1 else 4]) == {0, 2, 3, 4} - {word}


# ------------------------------------------------------------------------------------------ the shuffle of the controls


def shuffle_of(vocabulary, excluded=(), control="shuffled"):
    return make_shuffle(SelfKDOptions(control=control), vocabulary, excluded, torch.device("cpu"))


@pytest.mark.parametrize("excluded", [(), (0, 1), (3,), (0, 1, 2, 3, 4, 5)])
def test_the_shuffle_is_one_permutation_that_leaves_excluded_words_where_they_are(excluded):
    shuffle = shuffle_of(12, excluded)
    assert sorted(shuffle.forth.tolist()) == list(range(12))
    assert all(int(shuffle.forth[word]) == word for word in excluded)
    assert torch.equal(shuffle.forth[shuffle.back], torch.arange(12))
    torch.manual_seed(77)
    before = torch.get_rng_state()
    make_shuffle.__globals__["_permutation"].cache_clear()  # as in another process
    assert torch.equal(shuffle_of(12, excluded, "shuffled_rows").forth, shuffle.forth)
    assert torch.equal(torch.get_rng_state(), before)  # no other draw is moved by it


def test_the_shuffle_moves_nearly_every_word_of_a_vocabulary():
    forth = shuffle_of(10_000, (0, 1)).forth
    assert int((forth == torch.arange(10_000)).sum()) < 12  # the two, and about one
    assert (forth.double() - torch.arange(10_000)).abs().mean().item() == pytest.approx(10_000 / 3, rel=0.05)


@pytest.mark.parametrize("control", [control for control in CONTROLS if not control.startswith("shuffled")])
def test_other_controls_shuffle_nothing(control):
    assert shuffle_of(12, control=control) is None


@pytest.mark.parametrize("target", range(9))
def test_for_every_target_the_shuffle_is_a_permutation_of_the_other_words(target):
    shuffle = shuffle_of(9, (0, 1))
    words = torch.tensor([[target, *range(9)]])
    sent = shuffle.words(words)[0, 1:].tolist()
    assert sorted(sent) == list(range(9)) and sent[target] == target and sent[:2] == [0, 1]
    back = shuffle.words(torch.tensor([[target, *sent]]), back=True)[0, 1:].tolist()
    assert back == list(range(9))
    columns = shuffle.columns(torch.arange(9).unsqueeze(0), torch.tensor([target]))
    assert columns.tolist() == [sent]


@pytest.mark.parametrize("support", SUPPORTS)
@pytest.mark.parametrize("teacher", TEACHERS)
def test_shuffled_keeps_the_shape_and_moves_the_words(support, teacher):
    generator = torch.Generator().manual_seed(2)
    weight = torch.randn(40, 4, generator=generator)
    scores, teacher_scores = (torch.randn(30, 40, generator=generator) for _ in range(2))
    target = torch.randint(2, 40, (30,), generator=generator)
    q, shuffled = (
        soft_targets(
            scores, weight, target, SelfKDOptions(support, 3, teacher=teacher, control=control), (0, 1),
            generator=torch.Generator().manual_seed(1), teacher_scores=teacher_scores,
        )
        for control in ("none", "shuffled")
    )  # fmt: skip
    for i in range(30):
        one, two = (
            {int(k): float(p) for k, p, v in zip(of.indices[i], of.probs[i], of.valid[i]) if v} for of in (q, shuffled)
        )
        assert one[int(target[i])] == two[int(target[i])]
        assert sorted(one.values()) == sorted(two.values()) and len(one) == len(two)
        assert one != two or len(one) == 1
