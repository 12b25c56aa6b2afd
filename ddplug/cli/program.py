"""The ``ddplug`` command: parse, run, print one answer, and turn what a user can mend into one line and status 2.

Standard output holds the answer alone (``--json``: one object); progress and errors go to standard error.
"""

from __future__ import annotations

import errno
import json
import logging
import os
import sys
from collections.abc import Sequence
from importlib import import_module

from ddplug._version import __version__
from ddplug.cli.commands import COMMANDS, EXAMPLES, Answer
from ddplug.cli.sharing import sharing
from ddplug.errors import DdplugError, OptionError
from ddplug.utils.allocator import keep_memory
from ddplug.utils.arguments import Parser
from ddplug.utils.checks import one_of, out_of_memory
from ddplug.utils.notes import notes_on_stderr
from ddplug.utils.signals import Stop, stoppable
from ddplug.utils.streams import complain, disconnect, reconnect
from ddplug.utils.teams import failure, launched
from ddplug.utils.text import one_line, os_reason

__all__ = ["main"]

_WRONG, _SIGNAL, _PIPE = 2, 128, 141
"""Exit statuses: a mistake; what a shell adds to the number of a signal that ended a program; a closed pipe."""


def _overview() -> Parser:
    """Build the parser of ``ddplug`` alone; the commands' own are built when they are run."""
    width = max(map(len, COMMANDS))
    commands = "\n".join(f"  {name:<{width}}  {about}" for name, (_, about) in COMMANDS.items())
    parser = Parser(
        prog="ddplug",
        usage="ddplug COMMAND [options]",
        description="Distill, store, evaluate and compare small synthetic training sets.",
        epilog=f"commands:\n{commands}\n\n`ddplug COMMAND --help` lists the options of a command.",
    )
    parser.add_argument("--version", action="version", version=f"ddplug {__version__}")
    return parser


def _run(argv: Sequence[str]) -> tuple[Answer, bool]:
    """Run a command line; give its answer, and whether JSON is wanted."""
    if not argv or argv[0].startswith("-"):
        _overview().parse_args(argv)
        raise OptionError("no command given; `ddplug --help` lists them")
    name = argv[0]
    one_of("command", name, COMMANDS)
    _check_place()
    home, about = COMMANDS[name]
    module = import_module(home)
    parser = Parser(prog=f"ddplug {name}", description=f"{about[0].upper()}{about[1:]}.")
    rest = module.configure(parser, list(argv[1:]))
    example = EXAMPLES.get(parser.prog.removeprefix("ddplug "))
    parser.epilog = "\n\n".join(filter(None, (example and f"example:\n  {example}", parser.epilog)))
    parser.add_argument("--json", action="store_true", help="print one machine-readable object")
    arguments = parser.parse_args(rest)
    with notes_on_stderr(), sharing(name, arguments) as has_work:
        return module.run(arguments) if has_work else Answer({}, ""), arguments.json


def _check_place() -> None:
    """Refuse a folder that is gone: where it is, libraries that torch loads cannot be found, and end the process."""
    try:
        os.getcwd()
    except OSError:
        raise OptionError("the folder that this was started in is not there any more; change to another (cd)") from None


def _answered(argv: Sequence[str]) -> tuple[Answer, bool]:
    """Run a command line; where it is left with ``--help``, see that the text arrives."""
    try:
        return _run(argv)
    except SystemExit as leaving:
        raise SystemExit(_say("", end="") or leaving.code) from None


def _fail(message: object, status: int = _WRONG) -> int:
    complain(f"ddplug: {one_line(message)}")
    return status


def _os_error(error: OSError) -> str:
    where = f": {error.filename}" if error.filename else ""
    hint = "; free some space and run the same command again" if error.errno in (errno.ENOSPC, errno.EDQUOT) else ""
    return f"error: {os_reason(error)}{where}{hint}"


def _encodable(text: str) -> str:
    """Replace what standard output cannot encode."""
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    return text.encode(encoding, "replace").decode(encoding)


def _say(text: str, end: str = "\n") -> int:
    """Print the answer, if there is anybody to read it; give the exit status."""
    try:
        print(text, end=end, flush=True)
    except BrokenPipeError:
        disconnect(sys.stdout)
        return _PIPE
    except OSError as error:
        disconnect(sys.stdout)
        return _fail(
            f"error: the answer cannot be written to standard output: {os_reason(error)}; what the command made is kept"
        )
    except ValueError:  # it was closed
        return 0
    return 0


def _stopped(message: str, stop: Stop) -> int:
    how = failure() or ("interrupted" if stop.name == "SIGINT" else f"stopped by {stop.name}")
    return _fail(f"{how}; {message}" if message else how, _SIGNAL + stop.number)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the ``ddplug`` command.

    Args:
        argv: the arguments after the program's name; ``None`` takes those of the process.

    Returns:
        0 if all went well, 2 after a mistake that the user can mend, 128 and the number of the signal that stopped it
        (130 after Ctrl-C, 143 after SIGTERM), 141 after a closed pipe.

    Raises:
        SystemExit: ``--help`` and ``--version`` were printed.

    Example:
        >>> main(["evaluate", "--help"])  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        ...
        SystemExit: 0
    """
    reconnect()
    if not launched().leads:  # the first process speaks for all
        disconnect(sys.stdout)
        disconnect(sys.stderr)
    if argv is None:  # the process is the command's own
        keep_memory()
    # it tells where it keeps its fonts where the home folder cannot be written, which concerns no run
    logging.getLogger("matplotlib").setLevel(logging.ERROR)
    with stoppable(passing_on=False) as stop:
        try:
            answer, as_json = _answered(sys.argv[1:] if argv is None else argv)
        except DdplugError as error:
            return _fail(f"error: {error}")
        except KeyboardInterrupt as interrupt:
            return _stopped(str(interrupt), stop)
        except OSError as error:
            return _fail(_os_error(error))
        except (MemoryError, RuntimeError, ImportError) as error:
            if not out_of_memory(error):
                raise
            if isinstance(error, ImportError):
                return _fail(f"error: out of memory while loading a library ({error}); allow more (ulimit -v)")
            return _fail("error: out of memory; use smaller batches, a narrower network or fewer images")
    return _say(json.dumps(answer.values, allow_nan=False) if as_json else _encodable(answer.text))
