"""A quick stand-in for fairseq-preprocess: the same options, names and file format, without the import of torch."""

import array
import itertools
import struct
from collections import Counter

SPECIAL = ["<s>", "<pad>", "</s>", "<unk>"]


def parse(options):
    """Option -> value ("" for one without a value)."""
    parsed, name = {}, None
    for word in options:
        if word.startswith("--"):
            name, parsed[word] = word, ""
        else:
            parsed[name] = word
    return parsed


def write_binary(stem, lines, ids):
    """``stem.bin`` and ``stem.idx`` in fairseq's mmap format, 2 bytes a token."""
    sentences = [[ids.get(word, 3) for word in line.split()] + [2] for line in lines]
    tokens = array.array("H", (token for sentence in sentences for token in sentence))
    stem.with_name(stem.name + ".bin").write_bytes(tokens.tobytes())
    sizes = array.array("i", map(len, sentences))
    starts = array.array("q", [0, *itertools.accumulate(2 * size for size in sizes)][:-1])
    header = struct.pack("<9sQBQ", b"MMIDIDX\x00\x00", 1, 8, len(sentences))
    stem.with_name(stem.name + ".idx").write_bytes(header + sizes.tobytes() + starts.tobytes())


def quick_preprocess(folder, options, workers):
    """What ``fairseq-preprocess`` does with the options of either kind of dataset."""
    given = parse(options)
    pair = (given["--source-lang"], given["--target-lang"]) if "--source-lang" in given else ()
    sides = {f".{language}": f".{pair[0]}-{pair[1]}.{language}" for language in pair} or {"": ""}

    def read(split, side):
        return (folder / (given[f"--{split}pref"] + side)).read_text("utf-8").split("\n")[:-1]

    joined = "--joined-dictionary" in given
    (folder / "preprocess.log").write_text("a date")
    for side, stem in sides.items():
        counts = Counter(
            word for each in (sides if joined else [side]) for line in read("train", each) for word in line.split()
        )
        for word in SPECIAL:
            counts.pop(word, None)
        entries = sorted(counts.items(), key=lambda entry: (-entry[1], entry[0]))
        ids = {word: number for number, word in enumerate([*SPECIAL, *(word for word, _ in entries)])}
        text = "".join(f"{word} {count}\n" for word, count in entries)
        (folder / f"dict{side}.txt").write_text(text, encoding="utf-8")
        for split in ("train", "valid", "test"):
            write_binary(folder / f"{split}{stem}", read(split, side), ids)
