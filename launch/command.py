"""What all commands share: parsing flags, exit status, the --json line, and errors for people.

Exit status: 0 done, 1 failed with a message, 2 wrong usage.
"""

import importlib
import json
import logging as logging_of_python
import shlex
import sys
import traceback
from collections.abc import Mapping
from typing import Any

from absl import flags, logging

FLAGS = flags.FLAGS

flags.DEFINE_bool("json", False, "Print one JSON line as the last line of standard output, and nothing else there.")
flags.DEFINE_bool("quiet", False, "No progress bars and no notes, only results and errors.")
flags.DEFINE_bool("traceback", False, "Show where in the code an error came from.")

_DONE, _FAILED, _USAGE = 0, 1, 2
# The extra of setup.py that brings a module.
_EXTRA_OF = {
    "apache_beam": "beam", "tensorflow": "cpu], melcache[gpu] or melcache[tpu", "keras": "cpu",
    "sklearn": "cpu", "jinja2": "report", "matplotlib": "report",
}  # fmt: skip


class UsageError(Exception):
    """The command line is wrong; exit status 2."""


def run(name: str, arguments: list[str]) -> int:
    """Run command `name` of this package with `arguments`; returns the exit status."""
    try:
        module = importlib.import_module(f"launch.{name}")
        own, beam_args = _split_at_dashes(arguments)
        if {"--help", "-h"} & set(own):
            print(help_text(name, module))
            return _DONE
        positional = FLAGS([name, *own])[1:]
        logging.use_absl_handler()
        logging_of_python.getLogger("gcsfs").setLevel("CRITICAL")  # it prints traces of errors that we tell in a line
        result = module.main(positional=positional, beam_args=beam_args)
        line = json.dumps(result, allow_nan=False)
    except (flags.Error, UsageError) as error:
        print(f"melcache {name}: {error}\nmelcache {name} --help shows the flags.", file=sys.stderr)
        return _USAGE
    except KeyboardInterrupt:
        print(f"melcache {name}: stopped; the same command continues.", file=sys.stderr)
        return _FAILED
    except (ValueError, OSError, ImportError) as error:
        if isinstance(error, ModuleNotFoundError) and (extra := _EXTRA_OF.get(error.name)):
            error = f"this command needs {error.name}: install melcache[{extra}]"
        if FLAGS.is_parsed() and FLAGS.traceback:
            traceback.print_exc()
        print(f"melcache {name}: error: {error}", file=sys.stderr)
        return _FAILED
    if FLAGS.json:
        print(line)
    return _DONE if result.get("ok", True) else _FAILED  # a command may find, without failing, that something is not ok


def help_text(name: str, module) -> str:
    return (
        f"melcache {name}: {module.__doc__.strip()}\n{FLAGS.module_help(module)}\n"
        f"{FLAGS.module_help(sys.modules[__name__])}"
    )


def say(text: str) -> None:
    """A line for people: on standard output, or on standard error where --json keeps that for programs."""
    print(text, file=sys.stderr if FLAGS.json else sys.stdout, flush=True)


def note(text: str) -> None:
    """A line about what is going on, on standard error; --quiet hides it."""
    if not FLAGS.quiet:
        print(text, file=sys.stderr, flush=True)


def no_positional(positional: list[str]) -> None:
    """For commands that take flags only: a stray word is an error, not ignored."""
    if positional:
        raise UsageError(f"unexpected argument {positional[0]!r}: values are given as --flag=value")


def required(**values: Any) -> None:
    """Each flag named must have been given a value."""
    for name, value in values.items():
        if not value:
            raise UsageError(f"--{name} must be given")


def provenance(**paths: str | None) -> Mapping[str, Any]:
    """For specs and runs: the paths as given, and the command that people can type again."""
    return {
        **{name: path for name, path in paths.items() if path is not None},
        "command": shlex.join(["melcache", *sys.argv[1:]]),
    }


def _split_at_dashes(arguments: list[str]) -> tuple[list[str], list[str]]:
    """Beam's options stand after a bare `--`; ours before it, where a typo is an error."""
    if "--" not in arguments:
        return arguments, []
    place = arguments.index("--")
    return arguments[:place], arguments[place + 1 :]
