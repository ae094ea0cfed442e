"""The command line: ``early-kill …``. Results go to stdout, progress and errors to stderr; an error is one line, never a traceback."""

from __future__ import annotations

import os
import sys
from contextlib import suppress

import typer

from models.errors import EarlyKillError, Reject
from streams.commands import dead_letters, events, kills, logs, outbound, platform, schema
from streams.commands.common import tell

OK, FAILED, USAGE, INTERRUPTED, BROKEN_PIPE = 0, 1, 2, 130, 141
"""Exit codes."""

app = typer.Typer(
    name="early-kill",
    help="Watches how people react to a post, and takes down the variants that fall below the line while they run.",
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120},
)
for group in (platform, schema, events, logs, kills, dead_letters, outbound):
    group.register(app)


def main() -> None:
    """Run the command that the arguments name, and exit: 0 done, 1 could not, 2 wrong usage, 130 interrupted."""
    sys.exit(_run())


def _run() -> int:
    try:
        result = app(prog_name="early-kill", standalone_mode=False)
        sys.stdout.flush()
        code = result if isinstance(result, int) else OK
    except typer.TyperException as error:
        code = _say(_wrong_usage(error), USAGE)
    except Reject as error:
        code = _say(f"early-kill: {error}", USAGE)
    except EarlyKillError as error:
        code = _say(f"early-kill: {error}", FAILED)
    except (KeyboardInterrupt, typer.Abort):
        code = INTERRUPTED
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or the interpreter complains when it flushes at the end
        code = BROKEN_PIPE
    except OSError as error:
        code = _say(f"early-kill: {error.strerror or error}{f': {error.filename}' if error.filename else ''}", FAILED)
    except Exception as error:
        if os.environ.get("EARLY_KILL_LOG_LEVEL") == "DEBUG":
            raise
        code = _say(f"early-kill: internal error, please report it: {type(error).__name__}: {error} (EARLY_KILL_LOG_LEVEL=DEBUG shows where)", FAILED)
    return code


def _wrong_usage(error: typer.TyperException) -> str:
    context = getattr(error, "ctx", None)
    path = "early-kill" if context is None else context.command_path
    hint = f" `{path} --help` lists them." if hasattr(getattr(context, "command", None), "commands") else ""
    return f"{path}: {error.format_message()}{hint}"


def _say(line: str, code: int) -> int:
    with suppress(OSError):  # nobody listens
        tell(" ".join(line.split()))
    return code


if __name__ == "__main__":
    main()
