"""Reading raw files: what ends a sentence, and what is damaged."""

import gzip
import hashlib

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from selfkd_fairseq.data.errors import PreparationError
from selfkd_fairseq.data.raw_text import (
    RawFile,
    check_pair,
    find_raw_file,
    inspect_raw_file,
    one_line,
    read_sentences,
    sha256_of,
)

ODD = ["a\u2028b", "c\x85d", "e\rf", "g\x0ch", "i\x0bj", "k\x1c\x1d\x1el", "m\u2029n"]


def write(path, content):
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    return path


@pytest.mark.parametrize("name", ["text", "text.gz"])
class TestReading:
    def test_only_a_line_feed_ends_a_sentence(self, tmp_path, name):
        path = write(tmp_path / name, "".join(line + "\n" for line in ODD).encode())
        assert list(read_sentences(path)) == ODD

    def test_blank_lines_and_a_missing_last_line_feed(self, tmp_path, name):
        assert list(read_sentences(write(tmp_path / name, b"a\n\n b \n\nlast"))) == ["a", "", " b ", "", "last"]

    def test_empty_file(self, tmp_path, name):
        assert list(read_sentences(write(tmp_path / name, b""))) == []

    def test_windows_ends_and_byte_order_mark(self, tmp_path, name):
        path = write(tmp_path / name, b"\xef\xbb\xbfeins\r\nzwei\xef\xbb\xbf\r\ndrei\r")
        assert list(read_sentences(path)) == ["eins", "zwei\ufeff", "drei"]

    def test_invalid_utf8_names_file_and_line(self, tmp_path, name):
        path = write(tmp_path / name, b"good\n" * 4000 + b"\xff bad\n" + b"good\n" * 10)
        with pytest.raises(PreparationError, match=rf"{name}: line 4001 is not valid UTF-8"):
            list(read_sentences(path))

    def test_utf8_cut_inside_a_character(self, tmp_path, name):
        with pytest.raises(PreparationError, match="line 2 is not valid UTF-8"):
            list(read_sentences(write(tmp_path / name, b"ok\n" + "ä".encode()[:1])))


@given(st.lists(st.text(st.characters(exclude_characters="\n", exclude_categories=["Cs"]), max_size=8), max_size=6))
@hypothesis_settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60, deadline=None)
def test_what_is_written_is_read_back(tmp_path, lines):
    lines = [line.rstrip("\r").lstrip("\ufeff") for line in lines]
    path = write(tmp_path / "text.gz", "".join(line + "\n" for line in lines).encode())
    assert list(read_sentences(path)) == lines


CONTENT = "".join(f"Satz {i}: Grüße\n" for i in range(30)).encode()


def test_gzip_cut_anywhere_is_an_error(tmp_path):
    whole = gzip.compress(CONTENT)
    path = tmp_path / "cut.gz"
    for length in range(1, len(whole)):
        path.write_bytes(whole[:length])
        with pytest.raises(PreparationError, match="cut.gz: (truncated|damaged) gzip file"):
            list(read_sentences(path))


def test_gzip_with_any_changed_byte_of_data_is_an_error(tmp_path):
    whole = gzip.compress(CONTENT)
    path = tmp_path / "changed.gz"
    for position in range(10, len(whole)):  # the first ten bytes hold a date and the like, which nothing guards
        path.write_bytes(whole[:position] + bytes([whole[position] ^ 0x55]) + whole[position + 1 :])
        with pytest.raises(PreparationError, match="changed.gz: "):
            list(read_sentences(path))


def test_plain_text_under_a_gzip_name_is_an_error(tmp_path):
    path = tmp_path / "plain.gz"
    path.write_bytes(CONTENT)
    with pytest.raises(PreparationError, match="plain.gz: damaged gzip file"):
        list(read_sentences(path))


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


def test_inspection_counts_lines_and_hashes_the_file_as_it_lies(tmp_path):
    path = write(tmp_path / "text.gz", b"a\n\n \t\nb")
    assert inspect_raw_file(path) == RawFile(path, hashlib.sha256(path.read_bytes()).hexdigest(), lines=4, blank=2)


def test_sha256_of_more_than_one_block(tmp_path):
    content = bytes(range(256)) * 5000
    (tmp_path / "large").write_bytes(content)
    assert sha256_of(tmp_path / "large") == hashlib.sha256(content).hexdigest()


def test_compressed_file_is_found_before_the_plain_one(tmp_path):
    assert find_raw_file(tmp_path, "train.en.gz") is None
    (tmp_path / "train.en").write_text("x")
    assert find_raw_file(tmp_path, "train.en.gz") == tmp_path / "train.en"
    (tmp_path / "train.en.gz").mkdir()
    assert find_raw_file(tmp_path, "train.en.gz") == tmp_path / "train.en"
    (tmp_path / "train.en.gz").rmdir()
    (tmp_path / "train.en.gz").write_text("x")
    assert find_raw_file(tmp_path, "train.en.gz") == tmp_path / "train.en.gz"


class TestPair:
    def side(self, tmp_path, name, lines, blank=0):
        return RawFile(tmp_path / name, "0" * 64, lines, blank)

    def test_equal_sides_pass(self, tmp_path):
        check_pair(self.side(tmp_path, "a", 3, 2), self.side(tmp_path, "b", 3))

    def test_different_lengths_name_both_files_and_counts(self, tmp_path):
        with pytest.raises(PreparationError) as error:
            check_pair(self.side(tmp_path, "a.en", 31), self.side(tmp_path, "b.de", 29))
        assert f"{tmp_path / 'a.en'} has 31 lines" in str(error.value)
        assert f"{tmp_path / 'b.de'} has 29 lines" in str(error.value)

    def test_empty(self, tmp_path):
        with pytest.raises(PreparationError, match="b.de: the file is empty"):
            check_pair(self.side(tmp_path, "a.en", 2), self.side(tmp_path, "b.de", 0))

    def test_all_blank(self, tmp_path):
        with pytest.raises(PreparationError, match="a.en: all 4 lines are blank"):
            check_pair(self.side(tmp_path, "a.en", 4, 4), self.side(tmp_path, "b.de", 4))
