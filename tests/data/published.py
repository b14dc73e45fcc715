"""Small corpora in the inner layout of the published archives of IWSLT14, IWSLT15, WMT14 and WMT16."""

import gzip
import io
import random
import tarfile
import zipfile

from selfkd_fairseq.data import preparation
from selfkd_fairseq.data.datasets import DATASETS
from selfkd_fairseq.data.inputs import Origin

WORDS = {
    "en": "the old T-shirt it’s a river & “two” men, (walk) near 5,300 houses\u200b Nr.".split(),
    "de": "das alte T-Shirt ist’s ein Fluss & „zwei“ Männer, (gehen) bei 5.300 Häusern\u200b Nr.".split(),
    "ro": "ţara şi Şcoala e’n râu & „doi“ bărbaţi, (merg) lângă 5.300 case-mari\u200b Nr.".split(),
    "vi": "cái cũ &apos;s áo @-@ một con sông hai người đàn ông đi gần nhà , .".split(),
}
PAIRS = {"iwslt14": ("de", "en"), "iwslt15": ("en", "vi"), "wmt14": ("en", "de"), "wmt16": ("en", "ro")}
IWSLT14_TESTS = ["TED.dev2010", "TEDX.dev2012", "TED.tst2010", "TED.tst2011", "TED.tst2012"]


def sentences(name, language, count):
    """Sentences of 2 to 9 words; which ones depends on the name and the language, the lengths on the name alone."""
    lengths, words = random.Random(name), random.Random(f"{name} {language}")
    return [" ".join(words.choice(WORDS[language]) for _ in range(lengths.randint(2, 9))) + "." for _ in range(count)]


def lines(text):
    """The bytes of a text file."""
    return "".join(line + "\n" for line in text).encode()


def segments(text):
    """The lines of an evaluation set in markup."""
    inner = [f'<seg id="{number}"> {line} </seg>' for number, line in enumerate(text, start=1)]
    return ["<mteval>", '<doc docid="1">', "<title>no sentence</title>", *inner, "</doc>", "</mteval>"]


def talks(text, language):
    """The lines of a training file with what stands about each talk; the first two sentences are its title."""
    head = ["<url>http://x</url>", f"<keywords>{language}, words</keywords>", "<talkid>5</talkid>"]
    tags = [f"<title>{text[0]}</title>", f"<description>{text[1]}</description>"]
    return [*head, *tags, *text[2:9], *head, *text[9:]]


def tar(members):
    """The bytes of a gzipped tar file."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        for name, content in members.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return gzip.compress(packed.getvalue(), mtime=0)


def zipped(members):
    """The bytes of a zip file."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for name, content in members.items():
            archive.writestr(zipfile.ZipInfo(name, (2016, 1, 1, 0, 0, 0)), content)
    return packed.getvalue()


class Corpus:
    """One of the corpora.

    Attributes:
        text: (what, language) -> its sentences, in order; what is "train", "valid" or "test".
        members: archive -> name inside -> bytes; archive None: published as it is.
        files: name -> bytes, as published.
        test_sets: (sacreBLEU's name, name of our file without its language) -> what.
    """

    def __init__(self, name, source, target, train=120, test=8):
        self.name, self.languages, self.text, self.members = name, (source, target), {}, {}
        self.test_sets = {}
        for language in self.languages:
            getattr(self, "_" + name)(language, train, test)
        makers = {archive: zipped if str(archive).endswith(".zip") else tar for archive in self.members}
        self.files = {
            archive: makers[archive](members) for archive, members in self.members.items() if archive is not None
        }
        self.files.update(self.members.get(None, {}))

    def _add(self, what, archive, member, language, text, markup=None):
        self.text.setdefault((what, language), []).extend(text)
        self.members.setdefault(archive, {})[member] = lines(markup or text)

    def _iwslt14(self, language, train, test):
        text = sentences("train", language, train)
        self._add("train", "de-en.tgz", f"de-en/train.tags.de-en.{language}", language, text, talks(text, language))
        for each in IWSLT14_TESTS:
            text = sentences(each, language, test)
            self._add("test", "de-en.tgz", f"de-en/IWSLT14.{each}.de-en.{language}.xml", language, text, segments(text))
        self.members["de-en.tgz"]["de-en/README"] = b"about\n"

    def _iwslt15(self, language, train, test):
        for what, stem, count in (("train", "train", train), ("valid", "tst2012", test), ("test", "tst2013", test)):
            self._add(what, None, f"{stem}.{language}", language, sentences(stem, language, count))

    def _test_set(self, what, name, stem, language, count):
        pair = "-".join(self.languages)
        self._add(what, None, f"{stem}.{pair}.{language}", language, sentences(stem, language, count))
        self.test_sets[name, f"{stem}.{pair}"] = what

    def _wmt14(self, language, train, test):
        for archive, member, count in (
            ("training-parallel-europarl-v7.tgz", "training/europarl-v7.de-en", train),
            ("training-parallel-commoncrawl.tgz", "commoncrawl.de-en", train // 2),
            ("training-parallel-nc-v12.tgz", "training/news-commentary-v12.de-en", train // 4),
        ):
            self._add("train", archive, f"{member}.{language}", language, sentences(member, language, count))
        self._test_set("test", "wmt14/full", "newstest2014", language, test)

    def _wmt16(self, language, train, test):
        for archive, member, count in (
            ("training-parallel-ep-v8.tgz", "training-parallel-ep-v8/europarl-v8.ro-en", train),
            ("en-ro.txt.zip", "SETIMES.en-ro", train // 2),
        ):
            self._add("train", archive, f"{member}.{language}", language, sentences(member, language, count))
        self._test_set("valid", "wmt16/dev", "newsdev2016", language, test)
        self._test_set("test", "wmt16", "newstest2016", language, test)

    def write(self, folder):
        """Write the published files; the folder."""
        folder.mkdir(parents=True, exist_ok=True)
        for name, content in self.files.items():
            (folder / name).write_bytes(content)
        return folder

    def write_unpacked(self, folder, inside=True):
        """Write what is in the archives, with the folders inside or without; the folder."""
        for members in self.members.values():
            for name, content in members.items():
                path = folder / (name if inside else name.rsplit("/", 1)[-1])
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(content)
        return folder

    def write_sacrebleu(self, folder):
        """Fill a folder as sacreBLEU's cache; the folder."""
        source, target = self.languages
        for (name, _), what in self.test_sets.items():
            stem = folder / name / f"{name.replace('/', '_')}.{source}-{target}"
            stem.parent.mkdir(parents=True, exist_ok=True)
            for field, language in (
                ("src", source),
                ("ref", target),
                ("docid", None),
                ("genre", None),
                ("origlang", None),
            ):
                text = self.text[what, language] if language else ["x"] * len(self.text[what, source])
                stem.with_name(f"{stem.name}.{field}").write_bytes(lines(text))
        return folder


def corpus(name, reverse=False, **sizes):
    """A small corpus called ``name``, in its usual direction or the other."""
    source, target = PAIRS[name]
    return Corpus(name, *((target, source) if reverse else (source, target)), **sizes)


def prepare(made, raw, dest, base_url=None, report=None, dataset=None, workers=1, **given):
    """Call the function under test."""
    dataset = dataset or DATASETS[made.name]
    source, target = made.languages
    settings = dataset.make_settings({"source": source, "target": target, "bpe_merges": 60, **given})
    return preparation.prepare(dataset, settings, Origin(raw, base_url), dest, workers, report or (lambda line: None))
