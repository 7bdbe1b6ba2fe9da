"""The command: parse, call one function, print. Every mistake is one line and an exit code; no traceback.

Exit codes: 0 done, 2 usage, 65 data, checkpoint, loss or collapse, 66 input missing, 71 out of memory, 73 folder in
use, 74 reading or writing failed, 75 SIGUSR1, 130 Ctrl-C, 143 SIGTERM; 1 is a defect of ours, with its traceback in the
run's error.log.
"""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Sequence
from typing import NoReturn

from stopgrad import processes
from stopgrad.contracts import StopgradError

DEFECT = 1
USAGE = 2
STORAGE = 74
PIPE_CLOSED = 0
INTERRUPTED = 130
WORDS: list[str] = []  # of the command that is being run, for the processes it starts


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command line and exit with its code."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in words
    sys.exit(run([word for word in words if word != "--debug"], debug))


def run(words: list[str], debug: bool) -> int:
    """The exit code of `stopgrad WORDS`; messages go to stderr, tracebacks only with `debug`."""
    try:
        from cyclopts import CycloptsError
    except ImportError:
        print(
            "stopgrad: the command needs cyclopts (pip install cyclopts); from Python, `import stopgrad` does without"
        )
        return USAGE
    from stopgrad.cli.app import app

    processes.announce()
    if processes.is_restarted() and (code := processes.already_over()):
        return code
    WORDS[:] = [*words, *(["--debug"] if debug else [])]
    try:
        app(words or ["--help"], exit_on_error=False, print_error=False, result_action="return_value")
        sys.stdout.flush()
        return 0
    except SystemExit as error:  # of processes that were started, and have said what there is to say
        return error.code if isinstance(error.code, int) else 0
    except CycloptsError as error:
        return _fail(" ".join(str(error).split()), USAGE, debug)
    except StopgradError as error:
        return _fail(str(error), error.exit_code, debug)
    except KeyboardInterrupt:
        return _fail("interrupted; nothing that was saved is lost", INTERRUPTED, debug)
    except BrokenPipeError:  # `stopgrad recipes | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return PIPE_CLOSED
    except OSError as error:  # a name that is too long, a folder that can't be looked into
        where = f"{error.filename}: " if error.filename else ""
        return _fail(f"{where}{error.strerror or error}; check that path, or repeat with --debug", STORAGE, debug)
    except Exception as error:  # ours to mend; the user gets one line all the same
        if processes.lost_a_neighbour(error):  # torchrun begins all of them again, or says which was lost
            said = " ".join(str(error).split())[:160]
            print(f"stopgrad: the connection to another process was lost ({printable(said)})", file=sys.stderr)
            return DEFECT
        where = "see the run's error.log, or repeat with --debug"
        return _fail(f"this is a defect of stopgrad: {type(error).__name__}: {error}; {where}", DEFECT, debug)


def _fail(message: str, code: int, debug: bool) -> int:
    first = processes.leave(code)  # of several processes the first to fail says why
    if debug:
        traceback.print_exc()
    if first:
        print(f"stopgrad: {printable(message)}", file=sys.stderr)
    return code


def printable(text: str) -> str:
    """File and class names are other people's text: control characters do not reach the terminal."""
    return "".join(c if c.isprintable() or c == "\n" else repr(c)[1:-1] for c in text)
