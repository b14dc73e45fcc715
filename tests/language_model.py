"""Perplexity of an LSTM language model, token by token, in numpy: from a text file and the tensors of a checkpoint.

Shares nothing with the plugin or with fairseq: own reading of text and dictionary, own LSTM.
"""

import argparse
import math

import numpy as np
import torch

TINY_ZAREMBA = (
    "--arch lstm_lm_zaremba_small --decoder-embed-dim 10 --decoder-hidden-size 12 --batch-size 4 --tokens-per-sample 12"
).split()
TINY_AWD = (
    "--arch awd_lstm_ptb --decoder-embed-dim 10 --decoder-hidden-size 14 --batch-size 4 --tokens-per-sample 12"
).split()
TASK = ["--task", "bptt_language_modeling", "--num-workers", "0"]


def read_words(text_file):
    """Every word of the file, with one </s> at the end of each line."""
    words = []
    with open(text_file, encoding="utf-8") as file:
        for line in file:
            words += [*line.split(), "</s>"]
    return words


def word_numbers(dictionary_file):
    """Word -> row of the embedding matrix."""
    with open(dictionary_file, encoding="utf-8") as file:
        words = ["<s>", "<pad>", "</s>", "<unk>", *(line.rsplit(" ", 1)[0] for line in file)]
    return {word: number for number, word in enumerate(words)}


def _layers(tensors):
    """(W_ih, W_hh, b_ih + b_hh) of each layer, whatever the model calls them."""
    layers = []
    for prefix, suffix in (("decoder.lstm.", "_l{}"), ("decoder.layers.{}.", "_l0")):
        number = 0
        while f"{prefix}weight_ih{suffix}".format(number) in tensors:
            w_ih, w_hh, b_ih, b_hh = (
                tensors[f"{prefix}{name}{suffix}".format(number)]
                for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
            )
            layers.append((w_ih, w_hh, b_ih + b_hh))
            number += 1
    return layers


def _sigmoid(x):
    return 1 / (1 + np.exp(-x))


def perplexity(checkpoint, dictionary_file, text_file, streams=1):
    """exp of the mean negative log-likelihood of every token but the first.

    Args:
        streams: the predictions are cut into that many contiguous pieces, each from a zero state.
    """
    torch.serialization.add_safe_globals([argparse.Namespace])  # as the plugin does
    state = torch.load(checkpoint, map_location="cpu", weights_only=True)["model"]
    tensors = {name: tensor.double().numpy() for name, tensor in state.items()}
    numbers = word_numbers(dictionary_file)
    tokens = [numbers.get(word, numbers["<unk>"]) for word in read_words(text_file)]
    layers, embedding = _layers(tensors), tensors["decoder.embed_tokens.weight"]
    weight, bias = (tensors[f"decoder.output_projection.{name}"] for name in ("weight", "bias"))
    length = math.ceil((len(tokens) - 1) / streams)
    total = 0.0
    for position in range(len(tokens) - 1):
        if position % length == 0:
            hidden = [(np.zeros(w_hh.shape[1]), np.zeros(w_hh.shape[1])) for _, w_hh, _ in layers]
        x = embedding[tokens[position]]
        for number, (w_ih, w_hh, b) in enumerate(layers):
            h, c = hidden[number]
            i, f, g, o = np.split(w_ih @ x + w_hh @ h + b, 4)
            c = _sigmoid(f) * c + _sigmoid(i) * np.tanh(g)
            x = _sigmoid(o) * np.tanh(c)
            hidden[number] = (x, c)
        logits = weight @ x + bias
        total += np.logaddexp.reduce(logits) - logits[tokens[position + 1]]
    return math.exp(total / (len(tokens) - 1))
