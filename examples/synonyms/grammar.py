"""From a meaning to its English sentence and to all of its German translations with exact probabilities.

A meaning fixes everything but the wording. The English sentence says it in one way only, so that it determines the
meaning; German says it in several: each word that has synonyms is drawn independently with the probabilities of the
lexicon, and an adverb opens the sentence with probability ``FRONTED_ADVERB_PROBABILITY``. Articles and adjective
endings agree with the noun that was drawn, verbs with their subject.

Sentences are tuples of words. The first word is not capitalised (nouns always are, as everywhere in German).
"""

from typing import Dict, Iterator, NamedTuple, Optional, Tuple

from .lexicon import ADJECTIVES, ADVERBS, NOUNS, PLACE_PREPOSITIONS, VERBS, GermanNoun

__all__ = [
    "FRONTED_ADVERB_PROBABILITY",
    "Meaning",
    "NounPhrase",
    "Sentence",
    "english",
    "german_vocabulary",
    "most_probable",
    "translations",
]

FRONTED_ADVERB_PROBABILITY = 0.3

Sentence = Tuple[str, ...]

# determiner -> case -> forms for masculine, feminine, neuter, plural; None: no determiner
_DETERMINERS = {
    "the": {"nom": "der die das die", "acc": "den die das die", "dat": "dem der dem den"},
    "this": {
        "nom": "dieser diese dieses diese",
        "acc": "diesen diese dieses diese",
        "dat": "diesem dieser diesem diesen",
    },
    "my": {"nom": "mein meine mein meine", "acc": "meinen meine mein meine", "dat": "meinem meiner meinem meinen"},
    "a": {"nom": "ein eine ein", "acc": "einen eine ein", "dat": "einem einer einem"},
}
_WEAK_ENDINGS = {"nom": "e e e en", "acc": "en e e en", "dat": "en en en en"}
_MIXED_ENDINGS = {"nom": "er e es en", "acc": "en e es en", "dat": "en en en en"}
# without a determiner: the corpus has plurals only
_STRONG_PLURAL_ENDINGS = {"nom": "e", "acc": "e", "dat": "en"}
_ADJECTIVE_ENDINGS = {"the": _WEAK_ENDINGS, "this": _WEAK_ENDINGS, "my": _MIXED_ENDINGS, "a": _MIXED_ENDINGS}
_COLUMNS = ("m", "f", "n", "plural")


class NounPhrase(NamedTuple):
    """Determiner ("the", "this", "my", "a", or None: indefinite plural), adjective or None, noun, number."""

    determiner: Optional[str]
    adjective: Optional[str]
    noun: str
    plural: bool


class Meaning(NamedTuple):
    """What a sentence says, in English keys of the lexicon."""

    subject: NounPhrase
    verb: str
    object: NounPhrase
    recipient: Optional[NounPhrase] = None
    place: Optional[Tuple[str, NounPhrase]] = None
    adverb: Optional[str] = None


def _english_noun_phrase(phrase: NounPhrase) -> Sentence:
    noun = NOUNS[phrase.noun]
    words = [phrase.adjective] if phrase.adjective else []
    words.append(noun.plural if phrase.plural else noun.singular)
    determiner = phrase.determiner
    if determiner == "this" and phrase.plural:
        determiner = "these"
    elif determiner == "a" and words[0][0] in "aeiou":
        determiner = "an"
    return tuple([determiner] + words if determiner else words)


def english(meaning: Meaning) -> Sentence:
    """The one English sentence of a meaning, full stop included."""
    verb = VERBS[meaning.verb]
    words = list(_english_noun_phrase(meaning.subject))
    if meaning.adverb and ADVERBS[meaning.adverb].before_verb:
        words.append(meaning.adverb)
    words += (verb.plural if meaning.subject.plural else verb.singular).split()
    words += _english_noun_phrase(meaning.object)
    if meaning.recipient:
        words += ("to", *_english_noun_phrase(meaning.recipient))
    if meaning.place:
        preposition, phrase = meaning.place
        words += (*preposition.split(), *_english_noun_phrase(phrase))
    if meaning.adverb and not ADVERBS[meaning.adverb].before_verb:
        words.append(meaning.adverb)
    return (*words, ".")


def _german_noun(noun: GermanNoun, case: str, plural: bool) -> str:
    if not plural:
        return noun.singular if case == "nom" else noun.oblique
    if case == "dat" and noun.plural[-1] not in "ns":
        return noun.plural + "n"
    return noun.plural


def _german_noun_phrases(phrase: NounPhrase, case: str) -> Dict[Sentence, float]:
    """All German versions of a noun phrase in a case, with their probabilities."""
    adjectives = ADJECTIVES[phrase.adjective].german if phrase.adjective else ((1.0, None),)
    result: Dict[Sentence, float] = {}
    for noun_probability, noun in NOUNS[phrase.noun].german:
        column = _COLUMNS.index("plural" if phrase.plural else noun.gender)
        determiner: Sentence = ()
        ending = _STRONG_PLURAL_ENDINGS[case]
        if phrase.determiner:
            determiner = (_DETERMINERS[phrase.determiner][case].split()[column],)
            ending = _ADJECTIVE_ENDINGS[phrase.determiner][case].split()[column]
        for adjective_probability, stem in adjectives:
            adjective: Sentence = (stem + ending,) if stem else ()
            words = (*determiner, *adjective, _german_noun(noun, case, phrase.plural))
            result[words] = result.get(words, 0.0) + noun_probability * adjective_probability
    return result


def _products(*parts: Dict[Sentence, float]) -> Iterator[Tuple[Tuple[Sentence, ...], float]]:
    """One alternative of each part, in every combination, with the product of their probabilities."""
    if not parts:
        yield (), 1.0
        return
    for words, probability in parts[0].items():
        for rest, rest_probability in _products(*parts[1:]):
            yield (words, *rest), probability * rest_probability


def translations(meaning: Meaning) -> Dict[Sentence, float]:
    """Every correct German sentence of a meaning with its exact probability; they sum to 1.

    Two different draws that end in the same sentence are one entry.

    Raises:
        KeyError: a word of the meaning is not in the lexicon.
    """
    nothing: Dict[Sentence, float] = {(): 1.0}
    subjects = _german_noun_phrases(meaning.subject, "nom")
    adverbs = {(word,): p for p, word in ADVERBS[meaning.adverb].german} if meaning.adverb else nothing
    recipients = _german_noun_phrases(meaning.recipient, "dat") if meaning.recipient else nothing
    places = nothing
    if meaning.place:
        preposition = PLACE_PREPOSITIONS[meaning.place[0]]
        places = {(preposition, *words): p for words, p in _german_noun_phrases(meaning.place[1], "dat").items()}
    result: Dict[Sentence, float] = {}
    for verb_probability, verb in VERBS[meaning.verb].german:
        finite = verb.plural if meaning.subject.plural else verb.singular
        objects = _german_noun_phrases(meaning.object, verb.object_case)
        for parts, probability in _products(subjects, adverbs, recipients, objects, places):
            subject, adverb, recipient, accusative, place = parts
            fronted = FRONTED_ADVERB_PROBABILITY if adverb else 0.0
            rest = (*recipient, *accusative, *place, ".")
            for words, order_probability in (
                ((*subject, finite, *adverb, *rest), 1.0 - fronted),
                ((*adverb, finite, *subject, *rest), fronted),  # German keeps the verb second
            ):
                if order_probability > 0.0:
                    result[words] = result.get(words, 0.0) + verb_probability * probability * order_probability
    return result


def most_probable(alternatives: Dict[Sentence, float]) -> Sentence:
    """The sentence with the highest probability; of equals, the alphabetically first."""
    return min(alternatives, key=lambda sentence: (-alternatives[sentence], sentence))


def german_vocabulary() -> Tuple[str, ...]:
    """Every word form that the grammar can produce, sorted."""
    words = {".", *PLACE_PREPOSITIONS.values()}
    for cases in _DETERMINERS.values():
        for forms in cases.values():
            words.update(forms.split())
    for adjective in ADJECTIVES.values():
        words.update(stem + ending for _, stem in adjective.german for ending in ("e", "en", "er", "es"))
    for adverb in ADVERBS.values():
        words.update(word for _, word in adverb.german)
    for entry in NOUNS.values():
        for _, noun in entry.german:
            words.update(_german_noun(noun, case, plural) for case in _WEAK_ENDINGS for plural in (False, True))
    for verb in VERBS.values():
        words.update(form for _, german in verb.german for form in (german.singular, german.plural))
    return tuple(sorted(words))
