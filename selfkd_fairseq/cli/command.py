"""What the console commands share: errors in one line, results alone on stdout, exit statuses."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import IO, Any, Callable, Mapping, NoReturn

from selfkd_fairseq.common.one_line import in_one_line
from selfkd_fairseq.common.quiet import quiet
from selfkd_fairseq.data.files import publish

# As a shell reports a program that SIGPIPE ended, which is what becomes of a tool whose reader is gone.
NO_READER = 141


def print_now(text: str, stream: IO[str] | None = None, end: str = "\n") -> None:
    """Print without delay. The program ends, with status 141 and not a word, if nobody reads it any more (``| head``).

    Args:
        text: what to print.
        stream: stdout (None) or stderr.
        end: printed after the text.

    Raises:
        OSError: it cannot be written for another reason, for example to a full disk.
    """
    stream = stream or sys.stdout
    try:
        print(text, file=stream, end=end, flush=True)
    except OSError as error:
        # What is left in the buffer Python would try to write again, and complain of, at its own end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
        if isinstance(error, BrokenPipeError):
            sys.exit(NO_READER)
        raise


class OneLineParser(argparse.ArgumentParser):
    """A parser whose errors are one line, as every other error of a command.

    Args:
        prog: name of the command.
        description: shown by --help as it is.
        epilog: as ``description``.
    """

    def __init__(self, prog: str, description: str, epilog: str) -> None:
        super().__init__(
            prog=prog,
            description=description,
            epilog=epilog,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )

    def error(self, message: str) -> NoReturn:
        """End the program with status 2 and one line, instead of the usage and then the line.

        Args:
            message: what is wrong with the command line.
        """
        self.report(f"error: {message} (see {self.prog} --help)")
        sys.exit(2)

    def print_help(self, file: Any = None) -> None:
        """Print what --help shows.

        Args:
            file: where to; None: stdout.
        """
        print_now(self.format_help(), file, end="")

    def report(self, line: str) -> None:
        """Print a message for the user on stderr.

        Args:
            line: the message; each run of line ends and other control characters in it becomes a space.
        """
        print_now(f"{self.prog}: {in_one_line(line)}", sys.stderr)


def count(text: str) -> int:
    """Type of an option that takes a number of things: from 1 to 999,999,999, which fits the integers of fairseq.

    Args:
        text: what stands on the command line.

    Returns:
        The number.

    Raises:
        argparse.ArgumentTypeError: it is no such number; argparse makes the message of the command of it.
    """
    if not (text.isascii() and text.isdigit()) or not 1 <= int(text[:20]):
        raise argparse.ArgumentTypeError(f"a whole number of at least 1 is needed, got {text!r}")
    if len(text) > 9:
        raise argparse.ArgumentTypeError(f"a whole number of at most 9 digits is needed, got {text[:20]}...")
    return int(text)


def write_results(folder: Path, contents: Mapping[str, bytes]) -> None:
    """Write files under their final names, one after the other, when all are whole; the folder is made.

    Args:
        folder: where they go; files of these names are replaced.
        contents: file name -> content.

    Raises:
        OSError: one cannot be written. Then nothing unfinished is left behind.
    """
    folder.mkdir(parents=True, exist_ok=True)
    unfinished = {name: folder / f".{name}.{os.getpid()}.unfinished" for name in contents}
    try:
        for name, content in contents.items():
            unfinished[name].write_bytes(content)
        for name, path in unfinished.items():
            publish(path, folder / name)
    finally:
        for path in unfinished.values():
            if path.exists():
                path.unlink()


def run_command(
    parser: OneLineParser,
    work: Callable[[], Any],
    mendable: type[Exception],
    place: str = "",
    interrupted: str = "",
    out_of_memory: str = "out of memory",
) -> int:
    """Do the work of a command and print its result.

    Args:
        parser: of the command.
        work: makes what goes to stdout.
        mendable: the error that the command raises for what the user can mend; its text is the message.
        place: added to an error of the system that names no file.
        interrupted: message after Ctrl-C, if there is something to say.
        out_of_memory: message when the memory does not suffice.

    Returns:
        The exit status: 0, 1 after an error, 130 after Ctrl-C. Each failure is one line on stderr. Where nobody reads
        the result any more, the program ends: see :func:`print_now`.
    """
    try:
        with quiet():
            result = work()
        print_now(str(result))
        return 0
    except KeyboardInterrupt:
        if interrupted:
            parser.report(interrupted)
        return 130
    except OSError as error:
        message = f"{error.strerror or error}" + (f" ({error.filename})" if error.filename else place)
    except MemoryError:
        message = out_of_memory
    except mendable as error:
        message = str(error)
    parser.report(f"error: {message}")
    return 1
