"""Random archives: nothing is written, and the only error is the documented one."""

import gzip
import io
import tarfile
import warnings
import zipfile

import hypothesis.strategies as st
import pytest
from hypothesis import event, given

from selfkd_fairseq.data.archives import check_archive, open_member
from selfkd_fairseq.data.errors import PreparationError
from tests.data.corpus import tree
from tests.hostile.fuzzing import fuzzed

MEMBER = "corpus/train.de"
NAMES = st.one_of(
    st.sampled_from(
        [
            MEMBER,
            f"./{MEMBER}",
            f"corpus//{'train.de'}",
            f"/{MEMBER}",
            f"../{MEMBER}",
            "corpus/../../x",
            "..",
            ".",
            "/",
            "/etc/x",
            "C:\\x",
            "..\\x",
            "corpus",
            "corpus/",
            "\0",
            "a\nb",
            "\udcff",
            "日本",
            "x" * 300,
            "~/x",
            " ",
            "con",
        ]
    ),
    st.text(min_size=1, max_size=5),
)
CONTENT = st.binary(max_size=40)
TYPES = st.sampled_from(
    [
        *[tarfile.REGTYPE] * 6,
        tarfile.AREGTYPE,
        tarfile.LNKTYPE,
        tarfile.SYMTYPE,
        tarfile.CHRTYPE,
        tarfile.BLKTYPE,
        tarfile.DIRTYPE,
        tarfile.FIFOTYPE,
        tarfile.CONTTYPE,
        tarfile.GNUTYPE_LONGNAME,
        tarfile.GNUTYPE_LONGLINK,
        tarfile.GNUTYPE_SPARSE,
        tarfile.XHDTYPE,
        tarfile.XGLTYPE,
        tarfile.SOLARIS_XHDTYPE,
        b"Z",
        b"\0",
    ]
)
# At 1 << 70 tarfile goes on reading after the end of the file, a block at a time, for ever.
SIZES = st.one_of(st.none(), st.none(), st.none(), st.sampled_from([0, 1, 511, 513, 1 << 20, 1 << 33, 1 << 70]))
PAX = st.dictionaries(
    st.sampled_from(
        [
            "size",
            "path",
            "linkpath",
            "mtime",
            "uid",
            "GNU.sparse.map",
            "GNU.sparse.size",
            "GNU.sparse.major",
            "GNU.sparse.minor",
            "GNU.sparse.name",
            "hdrcharset",
            "x",
        ]
    ),
    st.one_of(
        st.sampled_from(["0", "1", "-1", "x", "", "1e9", "9" * 5000, "0,1,5,9", "../x", "BINARY"]), st.text(max_size=4)
    ),
    max_size=2,
)


@st.composite
def changed(draw, content):
    """Now and then some bytes are replaced, doubled or cut off."""
    for _ in range(draw(st.sampled_from([0, 0, 0, 1, 2]))):
        place = draw(st.integers(0, len(content)))
        length = draw(st.sampled_from([0, 1, 1, 4, 512, len(content)]))
        content = (
            content[:place] + draw(st.one_of(st.binary(max_size=8), st.just(bytes(512)))) + content[place + length :]
        )
    return content


@st.composite
def tar_files(draw):
    """Headers and contents that need not belong together, packed with gzip."""
    parts = []
    for _ in range(draw(st.integers(0, 4))):
        entry = tarfile.TarInfo(draw(NAMES))
        content = draw(CONTENT)
        size, entry.type, entry.linkname = draw(SIZES), draw(TYPES), draw(NAMES)
        entry.size = len(content) if size is None else size
        if draw(st.integers(0, 3)) == 0:
            entry.pax_headers = draw(PAX)
        try:
            header = entry.tobuf(
                draw(st.sampled_from([tarfile.GNU_FORMAT, tarfile.PAX_FORMAT, tarfile.USTAR_FORMAT])),
                errors="surrogateescape",
            )
        except (ValueError, UnicodeError):  # what the format cannot say
            continue
        parts += [draw(changed(header)), content, bytes(-len(content) % 512)]
    whole = draw(changed(b"".join([*parts, bytes(draw(st.sampled_from([0, 512, 1024, 10240])))])))
    return draw(changed(gzip.compress(whole, compresslevel=1, mtime=0)))


@st.composite
def zip_files(draw):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of names that are there twice
        for _ in range(draw(st.integers(0, 4))):
            entry = zipfile.ZipInfo()
            entry.filename = draw(NAMES).encode("utf-8", "replace").decode("utf-8")
            entry.compress_type = draw(st.sampled_from([0, 8, 12, 14]))
            entry.external_attr = draw(st.sampled_from([0, 0o120777 << 16, 0o40755 << 16, 0o20666 << 16]))
            entry.extra = draw(st.sampled_from([b"", b"", b"\x01\x00\x08\x00" + b"\xff" * 8, b"\x75\x70\x09\x00"]))
            archive.writestr(entry, draw(CONTENT))
    content = bytearray(file.getvalue())
    for _ in range(
        draw(st.sampled_from([0, 0, 1, 2]))
    ):  # a field of a header: versions, methods, sizes, offsets, flags
        mark = draw(st.sampled_from([b"PK\x01\x02", b"PK\x03\x04", b"PK\x05\x06"]))
        start = content.find(mark)
        if start >= 0:
            place = start + draw(st.integers(4, 45))
            value = draw(st.sampled_from([b"\xff\xff\xff\xff", b"\0\0\0\0", b"\x01\0", b"\x63\0", b"\xff\xff\xff\x7f"]))
            content[place : place + len(value)] = value
    return draw(changed(bytes(content)))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The archive lies two folders deep, so that what leads out of its folder would be seen."""
    return tmp_path_factory.mktemp("archives")


def read(path):
    with open_member(path, MEMBER) as stream:
        return stream.read()


def try_both(folder, name, content):
    path = folder / "deeper" / "still" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    before = tree(folder)
    for what, call in (("check", check_archive), ("read", read)):
        try:
            call(path)
        except PreparationError as error:
            assert str(path) in str(error)
            event(f"{what}: refused")
        else:
            event(f"{what}: done")
    assert tree(folder) == before


@fuzzed(usual=250)
@given(tar_files(), st.sampled_from(["a.tgz", "a.tar.gz"]))
def test_tar(folder, content, name):
    try_both(folder, name, content)


@fuzzed(usual=250)
@given(zip_files())
def test_zip(folder, content):
    try_both(folder, "a.zip", content)
