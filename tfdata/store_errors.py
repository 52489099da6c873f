"""What an object store's refusal means: one sentence that names the path, and one that says what to do.

gcsfs, google-auth and aiohttp raise errors of many classes, most of which name a URL of Google's API or no place.
"""

import functools
from collections.abc import Callable

MISSING = "no such file or bucket"
_LOGIN = (
    "log in with `gcloud auth application-default login`, or let GOOGLE_APPLICATION_CREDENTIALS name the key file of "
    "a service account"
)
_ROLE = (
    "have the account given roles/storage.objectAdmin on the bucket (roles/storage.objectViewer where it only reads), "
    "or use another account: " + _LOGIN
)
_LIBRARIES = ("gcsfs", "google", "aiohttp", "requests", "fsspec")


def is_store_error(error: BaseException) -> bool:
    """Whether `error` tells of a remote file system rather than of a mistake in a program."""
    return isinstance(error, OSError) or type(error).__module__.split(".")[0] in _LIBRARIES


def explain(error: BaseException, path: str) -> tuple[str, str]:
    """(what went wrong with `path`, what to do), the latter "" where there is nothing to say."""
    if explained := getattr(error, "explained", None):
        return explained
    if "://" not in path:
        return getattr(error, "strerror", None) or str(error), "choose a directory that you may read and write"
    *start, text = str(error).strip().splitlines() or [type(error).__name__]
    kind, status = type(error).__name__, str(getattr(error, "code", ""))
    if isinstance(error, FileNotFoundError):
        return MISSING, "correct the name, or create the bucket"
    if _is_forbidden(error):
        return f"access is denied ({text})", _ROLE
    if status == "401" or kind in ("RefreshError", "DefaultCredentialsError"):
        return f"the account is not known there ({text})", _LOGIN
    if "Connect" in kind or "Timeout" in kind:
        return f"the store can't be reached ({text})", "look at the network, and at a proxy between"
    return text, ""


def _is_forbidden(error: BaseException) -> bool:
    words = str(error).strip()
    return (
        isinstance(error, PermissionError) or str(getattr(error, "code", "")) == "403" or words.startswith("Forbidden")
    )


def as_os_error(error: BaseException, path: str) -> OSError:
    """The same as an OSError whose message is one sentence about `path`.

    A missing file is a FileNotFoundError, a forbidden one a PermissionError.
    """
    detail, fix = explain(error, path)
    kind = PermissionError if _is_forbidden(error) else OSError
    if isinstance(error, FileNotFoundError):
        kind = FileNotFoundError
    result = kind(f"{path}: {detail}" + (f": {fix}" if fix else ""))
    result.explained = detail, fix
    return result


def told(function: Callable) -> Callable:
    """Lets a function whose first argument is a path raise `as_os_error` of what a remote store refuses."""

    @functools.wraps(function)
    def telling(path: str, *arguments, **options):
        try:
            return function(path, *arguments, **options)
        except Exception as error:
            if "://" not in path or not is_store_error(error):
                raise
            raise as_os_error(error, path) from error

    return telling
