"""Reading zip archives: whole ones, damaged ones, and ones that mean harm."""

import zipfile

import pytest

from selfkd_fairseq.data.archives import open_member
from selfkd_fairseq.data.errors import PreparationError
from selfkd_fairseq.data.raw_text import RawFile, Text, read_sentences
from tests.data.corpus import tree
from tests.data.wiki import DATE, content, lines, write_archive

MEMBER = "wikitext-2/wiki.valid.tokens"


def read(path, member=MEMBER):
    with open_member(path, member) as file:
        return file.read()


def text_of(path, member=MEMBER):
    return list(read_sentences(Text(RawFile(path, path.name), member)))


@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_a_member_is_read_as_it_is(tmp_path, compression):
    path = write_archive(tmp_path / "a.zip", compression=compression)
    assert read(path) == content("valid")
    assert text_of(path) == lines("valid")


def test_member_larger_than_a_block(tmp_path):
    path = write_archive(tmp_path / "a.zip", counts={"valid": 80_000})
    assert len(content("valid", 80_000)) > 1 << 21
    assert text_of(path) == lines("valid", 80_000)


def test_missing_member(tmp_path):
    path = write_archive(tmp_path / "a.zip", name="wikitext-103")
    with pytest.raises(PreparationError) as error:
        read(path)
    assert str(error.value) == f"{path} has no {MEMBER} in it; is it the archive of something else?"


def test_no_archive_writes_anywhere(tmp_path):
    folder = tmp_path / "folder"
    folder.mkdir()
    path = write_archive(folder / "a.zip")
    with zipfile.ZipFile(path, "a") as archive:
        for name in ("../outside", str(tmp_path / "absolute"), "inside", "wikitext-2/wiki.valid.tokens/../x"):
            archive.writestr(zipfile.ZipInfo(name, DATE), "evil")
        link = zipfile.ZipInfo("link", DATE)
        link.external_attr = 0o120777 << 16
        archive.writestr(link, "/etc/passwd")
    before = tree(tmp_path)
    assert read(path) == content("valid")
    assert read(path, "link") == b"/etc/passwd"  # where it points to, not what is there
    assert tree(tmp_path) == before


def test_error_of_the_reader_is_not_hidden(tmp_path):
    path = write_archive(tmp_path / "a.zip")
    with pytest.raises(ZeroDivisionError), open_member(path, MEMBER):
        raise ZeroDivisionError
    with pytest.raises(FileNotFoundError):
        read(tmp_path / "absent.zip")


def small_archive(path, compression):
    with zipfile.ZipFile(path, "w", compression) as archive:
        info = zipfile.ZipInfo(MEMBER, DATE)
        info.compress_type = compression
        archive.writestr(info, "Grüße an alle , alle\n" * 6)
    return path.read_bytes()


@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
class TestDamage:
    def test_cut_anywhere(self, tmp_path, compression):
        path = tmp_path / "a.zip"
        whole = small_archive(path, compression)
        for length in range(len(whole)):
            path.write_bytes(whole[:length])
            with pytest.raises(PreparationError, match="a.zip: damaged zip archive") as error:
                text_of(path)
            assert "\n" not in str(error.value)

    @pytest.mark.parametrize("change", [0x01, 0x55, 0xFF])
    def test_any_changed_byte_is_an_error_or_changes_nothing(self, tmp_path, compression, change):
        path = tmp_path / "a.zip"
        whole = small_archive(path, compression)
        refused = 0
        for position in range(len(whole)):
            path.write_bytes(whole[:position] + bytes([whole[position] ^ change]) + whole[position + 1 :])
            try:
                assert text_of(path) == ["Grüße an alle , alle"] * 6
            except PreparationError as error:
                refused += 1
                assert f"{path}" in str(error)
        assert refused > 100  # dates and the like are there twice, or matter to nobody

    def test_stream_that_ends_too_early(self, tmp_path, compression):
        path = tmp_path / "a.zip"
        whole = small_archive(path, compression)
        start = whole.index(MEMBER.encode()) + len(MEMBER)
        path.write_bytes(whole[: start + 5] + whole[start + 15 :])  # the directory at the end is whole
        with pytest.raises(PreparationError, match="a.zip: damaged zip archive"):
            text_of(path)


@pytest.mark.parametrize("bytes_", [b"", b"PK", b"a text\n" * 100])
def test_no_archive_at_all(tmp_path, bytes_):
    (tmp_path / "a.zip").write_bytes(bytes_)
    with pytest.raises(PreparationError, match=r"a.zip: damaged zip archive \(File is not a zip file\)"):
        read(tmp_path / "a.zip")
