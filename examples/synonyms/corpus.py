"""Draw the synonym corpus: disjoint train, valid and test pairs, reproducible from a seed."""

import random
from pathlib import Path
from typing import Dict, List, NamedTuple, Optional, Sequence, Set

from .grammar import Meaning, NounPhrase, Sentence, english, translations
from .lexicon import ADJECTIVES, ADVERBS, NOUNS, PLACE_PREPOSITIONS, VERBS

__all__ = ["Pair", "draw_corpus", "draw_meaning", "draw_translation", "write_corpus"]


class Pair(NamedTuple):
    """A meaning, its English sentence, and the one German translation that was drawn."""

    meaning: Meaning
    source: Sentence
    target: Sentence


def _draw_noun_phrase(
    rng: random.Random, kinds: Sequence[str], determiners: Sequence[str], used: Set[str]
) -> NounPhrase:
    """A noun phrase whose noun is of one of the kinds and not in `used`; it is added there."""
    kind = rng.choice(kinds)
    noun = rng.choice([name for name, entry in NOUNS.items() if entry.kind == kind and name not in used])
    used.add(noun)
    fitting = [name for name, entry in ADJECTIVES.items() if kind in entry.kinds]
    adjective = rng.choice(fitting) if rng.random() < 0.5 else None
    plural = rng.random() < 0.35
    determiner: Optional[str] = rng.choice(determiners)
    if determiner == "a" and plural:
        determiner = None
    return NounPhrase(determiner, adjective, noun, plural)


def draw_meaning(rng: random.Random) -> Meaning:
    """One random meaning; no noun occurs twice in it."""
    used: Set[str] = set()
    verb = rng.choice(list(VERBS))
    entry = VERBS[verb]
    determiners = ("the", "the", "a", "my", "this")
    subject = _draw_noun_phrase(rng, ("person",), determiners, used)
    thing = _draw_noun_phrase(rng, entry.kinds, determiners, used)
    recipient = _draw_noun_phrase(rng, ("person",), determiners, used) if entry.recipient else None
    place = None
    if recipient is None and rng.random() < 0.3:
        preposition = rng.choice(list(PLACE_PREPOSITIONS))
        place = (preposition, _draw_noun_phrase(rng, ("place",), ("the", "a", "this"), used))
    adverb = rng.choice(list(ADVERBS)) if rng.random() < 0.4 else None
    return Meaning(subject, verb, thing, recipient, place, adverb)


def draw_translation(rng: random.Random, alternatives: Dict[Sentence, float]) -> Sentence:
    """One sentence, drawn with its probability."""
    return rng.choices(list(alternatives), weights=list(alternatives.values()))[0]


def draw_corpus(sizes: Dict[str, int], seed: int) -> Dict[str, List[Pair]]:
    """Draw the splits one after another; no English sentence occurs twice in the corpus, within a split or across.

    Args:
        sizes: split name -> number of sentence pairs.
        seed: the corpus is a pure function of sizes and seed.

    Returns:
        split name -> pairs
    """
    rng = random.Random(seed)
    seen: Set[Sentence] = set()
    corpus: Dict[str, List[Pair]] = {}
    for split, size in sizes.items():
        pairs: List[Pair] = []
        while len(pairs) < size:
            meaning = draw_meaning(rng)
            source = english(meaning)
            if source not in seen:
                seen.add(source)
                pairs.append(Pair(meaning, source, draw_translation(rng, translations(meaning))))
        corpus[split] = pairs
    return corpus


def write_corpus(corpus: Dict[str, List[Pair]], folder: Path, vocabulary: Sequence[str]) -> None:
    """Write ``{split}.en`` and ``{split}.de``, one sentence a line, and the target dictionary ``dict.de.txt``.

    Args:
        corpus: split name -> pairs, with a split "train".
        folder: an existing folder.
        vocabulary: every word that a correct translation can hold. The dictionary holds all of them, with their
            counts in train (0 where a form was never drawn), so that each has a probability under every model.
    """
    for split, pairs in corpus.items():
        for language, sentences in (("en", [p.source for p in pairs]), ("de", [p.target for p in pairs])):
            text = "".join(" ".join(sentence) + "\n" for sentence in sentences)
            (folder / f"{split}.{language}").write_text(text, encoding="utf-8")
    counts = dict.fromkeys(vocabulary, 0)
    for pair in corpus["train"]:
        for word in pair.target:
            counts[word] += 1
    lines = [f"{word} {counts[word]}\n" for word in sorted(counts, key=lambda word: (-counts[word], word))]
    (folder / "dict.de.txt").write_text("".join(lines), encoding="utf-8")
