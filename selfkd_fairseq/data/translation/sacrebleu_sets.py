"""Test sets of WMT, by sacreBLEU's own downloader."""

from __future__ import annotations

import shutil
import tarfile
import zlib
from pathlib import Path

from ..errors import PreparationError
from ..files import publish
from ..raw_text import sha256_of


def copy_test_set(test_set: str, pair: str, side: str, path: Path, sha256: str | None) -> None:
    """Copy one side of a test set; sacreBLEU downloads it first if its cache (``$SACREBLEU``) does not have it.

    Args:
        test_set: sacreBLEU's name, for example ``wmt14/full``.
        pair: for example ``en-de``.
        side: ``src`` or ``ref``.
        path: where to; appears only when it is whole.
        sha256: hex digest that it must have; None if it is unknown. sacreBLEU checks the MD5 of what it downloads.

    Raises:
        PreparationError: sacreBLEU cannot get it, or it is another one than before.
        OSError: ``path`` cannot be written.
    """
    import sacrebleu  # here, so that a call that has nothing to do does not wait for the import

    try:
        files = (
            [sacrebleu.get_source_file(test_set, pair)]
            if side == "src"
            else sacrebleu.get_reference_files(test_set, pair)
        )
    # sacreBLEU ends the program when a download has a wrong checksum, after it has said so.
    except (OSError, EOFError, tarfile.TarError, zlib.error, SystemExit) as error:
        raise PreparationError(
            f"sacreBLEU cannot get {test_set} {pair} ({error or type(error).__name__}); should its cache be damaged, "
            f"remove the folder {test_set} in it"
        ) from None
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    shutil.copyfile(files[0], str(part))
    if sha256 not in (None, sha256_of(part)):
        part.unlink()
        raise PreparationError(f"sacreBLEU's {test_set} {pair} is another one than that of the earlier call")
    publish(part, path)
