"""What the console commands share: errors in one line, results alone on stdout, exit statuses."""

from __future__ import annotations

import argparse
import sys
from typing import Any, Callable, NoReturn


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
        """End the program with status 2 and one line, instead of the usage and then the line."""
        self.exit(2, f"{self.prog}: error: {message} (see {self.prog} --help)\n")

    def report(self, line: str) -> None:
        """Print a message for the user on stderr."""
        print(f"{self.prog}: {line}", file=sys.stderr, flush=True)


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
        The exit status: 0, 1 after an error, 130 after Ctrl-C. Each failure is one line on stderr.
    """
    try:
        print(work())
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
    parser.report("error: " + " ".join(message.split("\n")))
    return 1
