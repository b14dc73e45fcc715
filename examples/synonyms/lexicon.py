"""The words of the synonym corpus: English concepts and their German translations with probabilities.

Pure data. A German noun is written with its nominative article, which states its gender; `oblique` is the
accusative and dative singular of weak nouns (der Junge, den Jungen). An adjective is written as the stem that
endings are put on (teur- of teuer), a verb in the third person singular and plural of the present.
"""

from typing import Dict, NamedTuple, Optional, Sequence, Tuple, TypeVar

__all__ = ["ADJECTIVES", "ADVERBS", "NOUNS", "PLACE_PREPOSITIONS", "VERBS", "GermanNoun", "GermanVerb"]

GENDER_OF_ARTICLE = {"der": "m", "die": "f", "das": "n"}


class GermanNoun(NamedTuple):
    """A noun: nominative singular, gender (m, f, n), nominative plural, accusative and dative singular."""

    singular: str
    gender: str
    plural: str
    oblique: str


class GermanVerb(NamedTuple):
    """A transitive verb: third person singular and plural of the present, and the case of its object."""

    singular: str
    plural: str
    object_case: str = "acc"


class Noun(NamedTuple):
    singular: str
    plural: str
    kind: str
    german: Tuple[Tuple[float, GermanNoun], ...]


class Adjective(NamedTuple):
    kinds: Tuple[str, ...]
    german: Tuple[Tuple[float, str], ...]


class Verb(NamedTuple):
    """`recipient`: the verb also takes a person in the dative ("gives the book to the child")."""

    singular: str
    plural: str
    kinds: Tuple[str, ...]
    recipient: bool
    german: Tuple[Tuple[float, GermanVerb], ...]


class Adverb(NamedTuple):
    before_verb: bool
    german: Tuple[Tuple[float, str], ...]


Entry = TypeVar("Entry", Noun, Verb)


def _noun(singular: str, plural: str, kind: str, *german) -> Noun:
    return Noun(singular, plural, kind, tuple((probability, _german_noun(*forms)) for probability, *forms in german))


def _german_noun(with_article: str, plural: str, oblique: Optional[str] = None) -> GermanNoun:
    article, singular = with_article.split()
    return GermanNoun(singular, GENDER_OF_ARTICLE[article], plural, oblique or singular)


def _verb(singular: str, plural: str, kinds: str, *german, recipient: bool = False) -> Verb:
    verbs = tuple((probability, GermanVerb(*forms)) for probability, *forms in german)
    return Verb(singular, plural, tuple(kinds.split()), recipient, verbs)


def _by_english(entries: Sequence[Entry]) -> Dict[str, Entry]:
    return {entry.singular: entry for entry in entries}


NOUNS: Dict[str, Noun] = _by_english(
    [
        _noun("man", "men", "person", (1.0, "der Mann", "Männer")),
        _noun("woman", "women", "person", (1.0, "die Frau", "Frauen")),
        _noun("girl", "girls", "person", (1.0, "das Mädchen", "Mädchen")),
        _noun("child", "children", "person", (1.0, "das Kind", "Kinder")),
        _noun("boy", "boys", "person", (0.7, "der Junge", "Jungen", "Jungen"), (0.3, "der Bub", "Buben", "Buben")),
        _noun("neighbour", "neighbours", "person", (1.0, "der Nachbar", "Nachbarn", "Nachbarn")),
        _noun("doctor", "doctors", "person", (1.0, "der Arzt", "Ärzte")),
        _noun("butcher", "butchers", "person",
              (0.5, "der Metzger", "Metzger"), (0.3, "der Fleischer", "Fleischer"),
              (0.2, "der Schlachter", "Schlachter")),
        _noun("carpenter", "carpenters", "person",
              (0.5, "der Tischler", "Tischler"), (0.5, "der Schreiner", "Schreiner")),
        _noun("actor", "actors", "person",
              (0.7, "der Schauspieler", "Schauspieler"), (0.3, "der Darsteller", "Darsteller")),
        _noun("farmer", "farmers", "person",
              (0.6, "der Bauer", "Bauern", "Bauern"), (0.4, "der Landwirt", "Landwirte")),
        _noun("grandmother", "grandmothers", "person",
              (0.6, "die Großmutter", "Großmütter"), (0.4, "die Oma", "Omas")),
        _noun("grandfather", "grandfathers", "person", (0.6, "der Großvater", "Großväter"), (0.4, "der Opa", "Opas")),
        _noun("lawyer", "lawyers", "person",
              (0.7, "der Anwalt", "Anwälte"), (0.3, "der Rechtsanwalt", "Rechtsanwälte")),
        _noun("colleague", "colleagues", "person",
              (0.6, "der Kollege", "Kollegen", "Kollegen"), (0.4, "die Kollegin", "Kolleginnen")),
        _noun("nurse", "nurses", "person", (0.6, "die Krankenschwester", "Krankenschwestern"),
              (0.4, "der Pfleger", "Pfleger")),
        _noun("car", "cars", "device", (0.6, "das Auto", "Autos"), (0.4, "der Wagen", "Wagen")),
        _noun("bicycle", "bicycles", "device", (0.7, "das Fahrrad", "Fahrräder"), (0.3, "das Rad", "Räder")),
        _noun("computer", "computers", "device", (0.6, "der Computer", "Computer"), (0.4, "der Rechner", "Rechner")),
        _noun("lamp", "lamps", "device", (0.7, "die Lampe", "Lampen"), (0.3, "die Leuchte", "Leuchten")),
        _noun("boat", "boats", "device", (0.7, "das Boot", "Boote"), (0.3, "der Kahn", "Kähne")),
        _noun("box", "boxes", "device", (0.5, "die Kiste", "Kisten"), (0.3, "der Kasten", "Kästen"),
              (0.2, "die Schachtel", "Schachteln")),
        _noun("cup", "cups", "device", (0.6, "die Tasse", "Tassen"), (0.4, "der Becher", "Becher")),
        _noun("sofa", "sofas", "device", (0.6, "das Sofa", "Sofas"), (0.4, "die Couch", "Couches")),
        _noun("camera", "cameras", "device",
              (0.6, "die Kamera", "Kameras"), (0.4, "der Fotoapparat", "Fotoapparate")),
        _noun("clock", "clocks", "device", (1.0, "die Uhr", "Uhren")),
        _noun("table", "tables", "device", (1.0, "der Tisch", "Tische")),
        _noun("letter", "letters", "text", (0.7, "der Brief", "Briefe"), (0.3, "das Schreiben", "Schreiben")),
        _noun("newspaper", "newspapers", "text", (0.7, "die Zeitung", "Zeitungen"), (0.3, "das Blatt", "Blätter")),
        _noun("magazine", "magazines", "text",
              (0.5, "die Zeitschrift", "Zeitschriften"), (0.5, "das Magazin", "Magazine")),
        _noun("story", "stories", "text",
              (0.7, "die Geschichte", "Geschichten"), (0.3, "die Erzählung", "Erzählungen")),
        _noun("picture", "pictures", "text", (0.5, "das Bild", "Bilder"), (0.3, "das Foto", "Fotos"),
              (0.2, "die Aufnahme", "Aufnahmen")),
        _noun("map", "maps", "text", (0.6, "die Karte", "Karten"), (0.4, "der Plan", "Pläne")),
        _noun("book", "books", "text", (1.0, "das Buch", "Bücher")),
        _noun("report", "reports", "text", (1.0, "der Bericht", "Berichte")),
        _noun("cake", "cakes", "food", (0.6, "der Kuchen", "Kuchen"), (0.4, "die Torte", "Torten")),
        _noun("orange", "oranges", "food", (0.5, "die Orange", "Orangen"), (0.5, "die Apfelsine", "Apfelsinen")),
        _noun("potato", "potatoes", "food", (0.7, "die Kartoffel", "Kartoffeln"), (0.3, "der Erdapfel", "Erdäpfel")),
        _noun("carrot", "carrots", "food", (0.4, "die Karotte", "Karotten"), (0.4, "die Möhre", "Möhren"),
              (0.2, "die Mohrrübe", "Mohrrüben")),
        _noun("roll", "rolls", "food", (0.6, "das Brötchen", "Brötchen"), (0.4, "die Semmel", "Semmeln")),
        _noun("apple", "apples", "food", (1.0, "der Apfel", "Äpfel")),
        _noun("house", "houses", "place", (1.0, "das Haus", "Häuser")),
        _noun("church", "churches", "place", (1.0, "die Kirche", "Kirchen")),
        _noun("tree", "trees", "place", (1.0, "der Baum", "Bäume")),
        _noun("bridge", "bridges", "place", (1.0, "die Brücke", "Brücken")),
        _noun("shop", "shops", "place", (0.5, "der Laden", "Läden"), (0.5, "das Geschäft", "Geschäfte")),
        _noun("building", "buildings", "place", (0.7, "das Gebäude", "Gebäude"), (0.3, "der Bau", "Bauten")),
        _noun("restaurant", "restaurants", "place",
              (0.6, "das Restaurant", "Restaurants"), (0.4, "die Gaststätte", "Gaststätten")),
        _noun("hospital", "hospitals", "place",
              (0.6, "das Krankenhaus", "Krankenhäuser"), (0.4, "die Klinik", "Kliniken")),
        _noun("gate", "gates", "place", (0.7, "das Tor", "Tore"), (0.3, "die Pforte", "Pforten")),
    ]
)  # fmt: skip

ADJECTIVES: Dict[str, Adjective] = {
    "old": Adjective(("person", "device", "text", "place"), ((1.0, "alt"),)),
    "new": Adjective(("device", "text", "place"), ((1.0, "neu"),)),
    "big": Adjective(("device", "food", "place"), ((1.0, "groß"),)),
    "small": Adjective(("person", "device", "food", "place"), ((1.0, "klein"),)),
    "red": Adjective(("device", "food", "place"), ((1.0, "rot"),)),
    "beautiful": Adjective(("person", "device", "text", "place"), ((0.6, "schön"), (0.4, "hübsch"))),
    "strange": Adjective(
        ("person", "device", "text", "food", "place"), ((0.4, "seltsam"), (0.35, "merkwürdig"), (0.25, "komisch"))
    ),
    "famous": Adjective(("person", "text", "place"), ((0.6, "berühmt"), (0.4, "bekannt"))),
    "cheap": Adjective(("device", "text", "food"), ((0.5, "billig"), (0.3, "günstig"), (0.2, "preiswert"))),
    "expensive": Adjective(("device", "text", "food"), ((0.7, "teur"), (0.3, "kostspielig"))),
    "broken": Adjective(("device",), ((0.6, "kaputt"), (0.4, "defekt"))),
    "huge": Adjective(("device", "food", "place"), ((0.6, "riesig"), (0.4, "gewaltig"))),
    "tasty": Adjective(("food",), ((0.6, "lecker"), (0.4, "schmackhaft"))),
    "angry": Adjective(("person",), ((0.6, "wütend"), (0.4, "zornig"))),
    "clever": Adjective(("person",), ((0.5, "klug"), (0.3, "schlau"), (0.2, "gescheit"))),
    "cheerful": Adjective(("person",), ((0.6, "fröhlich"), (0.4, "heiter"))),
    "friendly": Adjective(("person",), ((0.5, "freundlich"), (0.5, "nett"))),
    "rich": Adjective(("person",), ((0.7, "reich"), (0.3, "wohlhabend"))),
    "poor": Adjective(("person",), ((1.0, "arm"),)),
    "brave": Adjective(("person",), ((0.6, "mutig"), (0.4, "tapfer"))),
}

VERBS: Dict[str, Verb] = _by_english(
    [
        _verb("sees", "see", "person device text food place", (1.0, "sieht", "sehen")),
        _verb("looks for", "look for", "person device text food", (1.0, "sucht", "suchen")),
        _verb("buys", "buy", "device text food", (0.7, "kauft", "kaufen"), (0.3, "erwirbt", "erwerben")),
        _verb("sells", "sell", "device text food", (1.0, "verkauft", "verkaufen")),
        _verb("gets", "get", "device text food",
              (0.5, "bekommt", "bekommen"), (0.3, "erhält", "erhalten"), (0.2, "kriegt", "kriegen")),
        _verb("finds", "find", "person device text food place",
              (0.7, "findet", "finden"), (0.3, "entdeckt", "entdecken")),
        _verb("steals", "steal", "device text food", (0.6, "stiehlt", "stehlen"), (0.4, "klaut", "klauen")),
        _verb("uses", "use", "device", (0.6, "benutzt", "benutzen"), (0.4, "verwendet", "verwenden")),
        _verb("cleans", "clean", "device", (0.6, "putzt", "putzen"), (0.4, "reinigt", "reinigen")),
        _verb("repairs", "repair", "device", (1.0, "repariert", "reparieren")),
        _verb("reads", "read", "text", (1.0, "liest", "lesen")),
        _verb("eats", "eat", "food", (0.7, "isst", "essen"), (0.3, "verspeist", "verspeisen")),
        _verb("observes", "observe", "person place",
              (0.6, "beobachtet", "beobachten"), (0.4, "betrachtet", "betrachten")),
        _verb("greets", "greet", "person", (0.5, "grüßt", "grüßen"), (0.5, "begrüßt", "begrüßen")),
        # one synonym governs the dative, the other the accusative: the object's case depends on the verb drawn
        _verb("helps", "help", "person", (0.6, "hilft", "helfen", "dat"), (0.4, "unterstützt", "unterstützen")),
        _verb("thanks", "thank", "person", (1.0, "dankt", "danken", "dat")),
        _verb("shows", "show", "device text food place", (1.0, "zeigt", "zeigen"), recipient=True),
        _verb("gives", "give", "device text food",
              (0.7, "gibt", "geben"), (0.3, "überreicht", "überreichen"), recipient=True),
        _verb("sends", "send", "device text food",
              (0.6, "schickt", "schicken"), (0.4, "sendet", "senden"), recipient=True),
    ]
)  # fmt: skip

ADVERBS: Dict[str, Adverb] = {
    "today": Adverb(False, ((1.0, "heute"),)),
    "now": Adverb(False, ((0.6, "jetzt"), (0.4, "nun"))),
    "again": Adverb(False, ((0.6, "wieder"), (0.4, "erneut"))),
    "often": Adverb(True, ((0.6, "oft"), (0.4, "häufig"))),
    "always": Adverb(True, ((0.7, "immer"), (0.3, "stets"))),
}

PLACE_PREPOSITIONS: Dict[str, str] = {"in front of": "vor", "behind": "hinter", "next to": "neben"}
