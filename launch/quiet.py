"""Keeps what C libraries print off the user's terminal: TensorFlow's start-up, mpg123's remarks on odd files.

They write to file descriptor 2, where no logging level of Python's reaches them.
"""

import contextlib
import os
import sys
import tempfile


@contextlib.contextmanager
def native_stderr_held():
    """Python's sys.stderr goes on to the terminal; what else is written to descriptor 2 shows if an error follows."""
    sys.stderr.flush()
    terminal = os.dup(2)
    python_stderr = sys.stderr
    with tempfile.TemporaryFile() as held, open(terminal, "w", buffering=1, encoding="utf-8") as sys.stderr:
        os.dup2(held.fileno(), 2)
        try:
            yield
        except Exception as error:
            if not isinstance(error, ValueError | OSError | ImportError):  # those have a message of their own
                held.seek(0)
                sys.stderr.write(held.read().decode("utf-8", "replace"))
            raise
        finally:
            sys.stderr.flush()
            os.dup2(terminal, 2)
            sys.stderr = python_stderr


def import_tensorflow():
    """Import TensorFlow with its start-up remarks held back."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # what matters comes as an exception
    with native_stderr_held():
        import tensorflow  # noqa: F401
