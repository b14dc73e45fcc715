"""The method restated in numpy, token by token, from its equations: it shares no code with the package."""

import math

import numpy as np


def nearest(weight, target, n, excluded):
    """The n nearest words of the target by brute force."""
    others = [k for k in range(len(weight)) if k != target and k not in excluded]
    return sorted(others, key=lambda k: np.sum((weight[target] - weight[k]) ** 2))[:n]


def soft_target_row(logits, weight, target, *, n, tau, relative, floor, excluded, support="predicted"):
    """q of one token as a dict {word: probability}; float64 throughout."""
    weight = np.asarray(weight, dtype=np.float64)
    if support == "predicted":
        order = sorted(range(len(logits)), key=lambda k: -logits[k])
        words = [k for k in order if k not in excluded][:n]
    elif support == "nearest":
        words = nearest(weight, target, n, excluded)
    else:
        assert support == "full"
        words = [k for k in range(len(weight)) if k not in excluded]
    support = {target, *words}
    if relative:
        mean_square = np.mean([np.dot(w, w) for w in weight])
        mean = weight.mean(axis=0)
        tau = tau * math.sqrt(2.0 * (mean_square - np.dot(mean, mean)))
    distance = {k: math.sqrt(np.sum((weight[target] - weight[k]) ** 2)) for k in support}
    unnormalised = {k: math.exp(-distance[k] / tau) for k in support}
    total = sum(unnormalised.values())
    q = {k: v / total for k, v in unnormalised.items()}
    if q[target] < floor:
        scale = (1.0 - floor) / (1.0 - q[target])
        q = {k: floor if k == target else v * scale for k, v in q.items()}
    return q


def log_softmax_row(logits):
    top = max(logits)
    total = top + math.log(sum(math.exp(z - top) for z in logits))
    return [z - total for z in logits]


def losses(logits, weight, targets, *, alpha, label_smoothing=0.0, pad=None, excluded=(), **soft):
    """(L, L_CE, nll, L_SKD) as sums in nats over the tokens that are not padding, and dL/dlogits."""
    logits = np.asarray(logits, dtype=np.float64)
    vocabulary = logits.shape[1]
    gradient = np.zeros_like(logits)
    sums = np.zeros(4)
    eps_i = label_smoothing / (vocabulary - 1)
    for i, target in enumerate(int(t) for t in targets):
        if target == pad:
            continue
        lprobs = log_softmax_row([float(z) for z in logits[i]])
        # fairseq's label smoothing: 1 - eps on the target, eps / (V - 1) on every other word.
        smoothed = [eps_i] * vocabulary
        smoothed[target] = 1.0 - label_smoothing
        q = soft_target_row([float(z) for z in logits[i]], weight, target, excluded={*excluded, pad}, **soft)
        ce = -sum(s * lp for s, lp in zip(smoothed, lprobs))
        skd = -sum(q[k] * lprobs[k] for k in q)
        sums += [(1 - alpha) * ce + alpha * skd, ce, -lprobs[target], skd]
        for k in range(vocabulary):
            p = math.exp(lprobs[k])
            gradient[i, k] = (1 - alpha) * (p - smoothed[k]) + alpha * (p - q.get(k, 0.0))
    return sums, gradient
