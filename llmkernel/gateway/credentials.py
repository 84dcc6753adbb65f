"""The token of a gateway: from the environment or from a file of this user alone."""

from __future__ import annotations

import hmac
import os
import secrets
import stat
from pathlib import Path

from llmkernel import environment
from llmkernel.errors import ConnectionProblem, InvalidRequest
from llmkernel.paths import runtime_folder

MIN_CHARACTERS = 16
_FILE = "llmkernel-gateway.token"


class Token:
    """A secret that can be compared and not printed."""

    def __init__(self, secret: str) -> None:
        if len(secret) < MIN_CHARACTERS or not secret.isascii() or not secret.isprintable():
            raise InvalidRequest(
                f"The gateway's token must have at least {MIN_CHARACTERS} printable ASCII "
                "characters. Leave it unset and one is made.",
                field="token",
            )
        self._secret = secret.encode()

    def matches(self, offered: str) -> bool:
        """Whether this is it, in a time that does not depend on how much of it is right."""
        return hmac.compare_digest(offered.encode(errors="surrogatepass"), self._secret)

    def __repr__(self) -> str:
        return "Token(...)"


def token_path() -> Path:
    """Where the token is kept, for the scripts of this user."""
    return runtime_folder(make=True) / _FILE


def find_token() -> Token:
    """The token of the environment, or of the file, which is made where it is missing."""
    given = environment.gateway_token()
    return Token(given if given is not None else read_token_file())


def read_token_file() -> str:
    """What is in the token file. Raises ConnectionProblem for one that others could read."""
    path = token_path()
    try:
        return _create(path)
    except FileExistsError:
        return _read(path)


def _create(path: Path) -> str:
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    # made whole under another name: two that start at once must not see half of it
    secret = secrets.token_urlsafe(32)
    draft = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    fd = os.open(draft, flags, 0o600)
    try:
        with os.fdopen(fd, "w") as file:
            os.fchmod(fd, 0o600)
            file.write(secret + "\n")
        os.link(draft, path)
    finally:
        draft.unlink()
    return secret


def _read(path: Path) -> str:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise _unusable(os.strerror(error.errno or 0)) from None
    with os.fdopen(fd) as file:
        facts = os.fstat(fd)
        if not stat.S_ISREG(facts.st_mode) or facts.st_uid != os.geteuid():
            raise _unusable("it is no file of yours")
        if facts.st_mode & 0o077:
            raise _unusable(f"its mode is {stat.S_IMODE(facts.st_mode):04o}, so others can read it")
        return file.read(4096).strip()


def _unusable(why: str) -> ConnectionProblem:
    return ConnectionProblem(
        f"The token file {_FILE} in Jupyter's runtime folder cannot be used: {why}. Remove it; "
        "the next start makes a new one."
    )
