"""Reading raw files: what ends a sentence, and what is damaged."""

import gzip
import hashlib

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from selfkd_fairseq.data.errors import PreparationError
from selfkd_fairseq.data.raw_text import (
    InspectedText,
    RawFile,
    Text,
    find_raw_file,
    fingerprint,
    inspect_text,
    one_line,
    read_again,
    read_sentences,
    sha256_of,
)

ODD = ["a\u2028b", "c\x85d", "e\rf", "g\x0ch", "i\x0bj", "k\x1c\x1d\x1el", "m\u2029n"]


def text_in(path):
    return Text(RawFile(path, path.name))


def write(path, content):
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    return text_in(path)


@pytest.mark.parametrize("name", ["text", "text.gz"])
class TestReading:
    def test_only_a_line_feed_ends_a_sentence(self, tmp_path, name):
        text = write(tmp_path / name, "".join(line + "\n" for line in ODD).encode())
        assert list(read_sentences(text)) == ODD

    def test_blank_lines_and_a_missing_last_line_feed(self, tmp_path, name):
        assert list(read_sentences(write(tmp_path / name, b"a\n\n b \n\nlast"))) == ["a", "", " b ", "", "last"]

    def test_empty_file(self, tmp_path, name):
        assert list(read_sentences(write(tmp_path / name, b""))) == []

    def test_windows_ends_and_byte_order_mark(self, tmp_path, name):
        text = write(tmp_path / name, b"\xef\xbb\xbfeins\r\nzwei\xef\xbb\xbf\r\ndrei\r")
        assert list(read_sentences(text)) == ["eins", "zwei\ufeff", "drei"]

    def test_invalid_utf8_names_file_and_line(self, tmp_path, name):
        text = write(tmp_path / name, b"good\n" * 4000 + b"\xff bad\n" + b"good\n" * 10)
        with pytest.raises(PreparationError, match=rf"{name}: line 4001 is not valid UTF-8"):
            list(read_sentences(text))

    def test_utf8_cut_inside_a_character(self, tmp_path, name):
        with pytest.raises(PreparationError, match="line 2 is not valid UTF-8"):
            list(read_sentences(write(tmp_path / name, b"ok\n" + "ä".encode()[:1])))


@given(st.lists(st.text(st.characters(exclude_characters="\n", exclude_categories=["Cs"]), max_size=8), max_size=6))
@hypothesis_settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60, deadline=None)
def test_what_is_written_is_read_back(tmp_path, lines):
    lines = [line.rstrip("\r").lstrip("\ufeff") for line in lines]
    text = write(tmp_path / "text.gz", "".join(line + "\n" for line in lines).encode())
    assert list(read_sentences(text)) == lines


CONTENT = "".join(f"Satz {i}: Grüße\n" for i in range(30)).encode()


def test_gzip_cut_anywhere_is_an_error(tmp_path):
    whole = gzip.compress(CONTENT)
    path = tmp_path / "cut.gz"
    for length in range(1, len(whole)):
        path.write_bytes(whole[:length])
        with pytest.raises(PreparationError, match="cut.gz: (truncated|damaged) gzip file"):
            list(read_sentences(text_in(path)))


def test_gzip_with_any_changed_byte_of_data_is_an_error(tmp_path):
    whole = gzip.compress(CONTENT)
    path = tmp_path / "changed.gz"
    for position in range(10, len(whole)):  # the first ten bytes hold a date and the like, which nothing guards
        path.write_bytes(whole[:position] + bytes([whole[position] ^ 0x55]) + whole[position + 1 :])
        with pytest.raises(PreparationError, match="changed.gz: "):
            list(read_sentences(text_in(path)))


def test_plain_text_under_a_gzip_name_is_an_error(tmp_path):
    path = tmp_path / "plain.gz"
    path.write_bytes(CONTENT)
    with pytest.raises(PreparationError, match="plain.gz: damaged gzip file"):
        list(read_sentences(text_in(path)))


@pytest.mark.parametrize("sentence", ODD)
def test_one_line_is_one_line_for_every_reader(tmp_path, sentence):
    text = one_line(sentence)
    assert len(text.splitlines()) == 1
    assert len(text) == len(sentence)
    assert text.split() == [part for part in sentence.split() for part in part.split()]
    (tmp_path / "text").write_bytes((text + "\n").encode())
    with open(tmp_path / "text", encoding="utf-8") as file:
        assert len(file.readlines()) == 1


def test_one_line_leaves_other_text_alone():
    assert one_line("Grüße\t an\xa0alle – „ja“ 漢字") == "Grüße\t an\xa0alle – „ja“ 漢字"


def test_inspection_counts_lines_and_hashes_the_text(tmp_path):
    content = b"a\n\n \t\nb"
    text = write(tmp_path / "text.gz", content)
    assert inspect_text(text) == InspectedText(text, lines=4, sha256=hashlib.sha256(content).hexdigest())


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"", "text: the file is empty"), (b"\n \n\t\n\xc2\xa0\n", "text: all 4 lines are blank")],
)
def test_a_text_without_a_word_is_refused(tmp_path, content, message):
    with pytest.raises(PreparationError, match=message):
        inspect_text(write(tmp_path / "text", content))


def test_what_is_reserved_is_refused_with_file_and_line(tmp_path):
    text = write(tmp_path / "bad", b"a\nb </s>\n")
    assert inspect_text(text).lines == 2
    with pytest.raises(PreparationError, match="bad: line 2 has the word </s>, which fairseq keeps for itself"):
        inspect_text(text, lambda sentence: "the word </s>" if "</s>" in sentence else None)


def test_a_text_is_read_again_unless_it_changed(tmp_path):
    inspected = inspect_text(write(tmp_path / "text.gz", b"one\ntwo\n"))
    assert list(read_again(inspected)) == ["one", "two"]
    write(tmp_path / "text.gz", b"one\ntow\n")  # as many lines and bytes
    taken = []
    with pytest.raises(PreparationError, match="text.gz was changed during the preparation"):
        taken.extend(read_again(inspected))


def test_sha256_of_more_than_one_block(tmp_path):
    content = bytes(range(256)) * 5000
    (tmp_path / "large").write_bytes(content)
    assert sha256_of(tmp_path / "large") == hashlib.sha256(content).hexdigest()


@pytest.mark.parametrize(("name", "other"), [("train.en.gz", "train.en"), ("ptb.train.txt", "ptb.train.txt.gz")])
def test_the_published_form_is_found_before_the_other(tmp_path, name, other):
    assert find_raw_file(tmp_path, name) is None
    (tmp_path / other).write_text("x")
    assert find_raw_file(tmp_path, name).path == tmp_path / other
    (tmp_path / name).mkdir()
    assert find_raw_file(tmp_path, name).path == tmp_path / other
    (tmp_path / name).rmdir()
    (tmp_path / name).write_text("x")
    assert find_raw_file(tmp_path, name) == RawFile(tmp_path / name, name)


class TestFingerprint:
    """What the SHA-256 of a raw file is of, and what it is recorded under."""

    CONTENT = b"a text\n"

    def known_by(self, folder, name, form, mtime=0):
        data = gzip.compress(self.CONTENT, mtime=mtime) if form.endswith(".gz") else self.CONTENT
        (folder / form).write_bytes(data)
        file = find_raw_file(folder, name)
        assert file.path == folder / form
        return file.name, fingerprint(file)

    def test_published_as_text(self, tmp_path):
        expected = ("t.txt", hashlib.sha256(self.CONTENT).hexdigest())
        assert self.known_by(tmp_path, "t.txt", "t.txt.gz") == expected
        assert self.known_by(tmp_path, "t.txt", "t.txt.gz", mtime=9) == expected
        assert self.known_by(tmp_path, "t.txt", "t.txt") == expected

    def test_published_as_gzip(self, tmp_path):
        assert self.known_by(tmp_path, "t.gz", "t") == ("t", hashlib.sha256(self.CONTENT).hexdigest())
        compressed = hashlib.sha256(gzip.compress(self.CONTENT, mtime=9)).hexdigest()
        assert self.known_by(tmp_path, "t.gz", "t.gz", mtime=9) == ("t.gz", compressed)

    def test_damaged(self, tmp_path):
        (tmp_path / "t.txt.gz").write_bytes(gzip.compress(self.CONTENT)[:-3])
        with pytest.raises(PreparationError, match="t.txt.gz: truncated gzip file"):
            fingerprint(find_raw_file(tmp_path, "t.txt"))
