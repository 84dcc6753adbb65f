"""The program as a person has it: in a terminal of its own, or in a pipe."""

from __future__ import annotations

import codecs
import contextlib
import fcntl
import os
import pty
import re
import select
import signal
import subprocess
import sys
import termios
import time
from typing import Self

PROGRAM = [sys.executable, "-m", "llmkernel.cli"]


def run(
    *arguments: str, stdin: bytes | None = None, timeout: float = 60
) -> subprocess.CompletedProcess[str]:
    """Run a command to its end with no terminal; standard input is `stdin` or nothing."""
    done = subprocess.run(
        [*PROGRAM, *arguments],
        input=stdin or b"",
        capture_output=True,
        timeout=timeout,
        check=False,
    )
    return subprocess.CompletedProcess(
        done.args, done.returncode, done.stdout.decode(), done.stderr.decode()
    )


class Terminal:
    """A command in a pseudo terminal: what it wrote, what is typed into it. Use it with `with`."""

    def __init__(self, *arguments: str) -> None:
        self.screen = ""
        # a character's bytes may come in several reads
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._fd, inner = pty.openpty()
        self.process = subprocess.Popen(
            [*PROGRAM, *arguments],
            stdin=inner,
            stdout=inner,
            stderr=inner,
            start_new_session=True,
            preexec_fn=_own_terminal,
            env={**os.environ, "TERM": "xterm", "COLUMNS": "100", "LINES": "40"},
        )
        os.close(inner)

    def type(self, text: str) -> None:
        """Type `text`, as it is."""
        os.write(self._fd, text.encode())

    def interrupt(self) -> None:
        """Ctrl-C."""
        self.type("\x03")

    def until(self, pattern: str, seconds: float = 20) -> str:
        """Read until `pattern` is on the screen; what was before and in it, taken off."""
        seen = self._seek(pattern, seconds)
        assert seen is not None, f"no {pattern!r} in {self.screen!r}"
        return seen

    def sees(self, pattern: str, seconds: float) -> bool:
        """Whether `pattern` comes on the screen in time; it is taken off then."""
        return self._seek(pattern, seconds) is not None

    def _seek(self, pattern: str, seconds: float) -> str | None:
        deadline = time.monotonic() + seconds
        while (found := re.search(pattern, self.screen)) is None:
            if time.monotonic() > deadline:
                return None
            self._read()
        seen, self.screen = self.screen[: found.end()], self.screen[found.end() :]
        return seen

    def end(self, seconds: float = 20) -> int:
        """Wait for the end; the exit code. What was written is in `screen`."""
        deadline = time.monotonic() + seconds
        while self.process.poll() is None:
            assert time.monotonic() < deadline, f"still runs: {self.screen!r}"
            self._read()
        self._read()
        return self.process.returncode

    def _read(self) -> None:
        if select.select([self._fd], [], [], 0.05)[0]:
            with contextlib.suppress(OSError):  # the other side is closed
                self.screen += self._decoder.decode(os.read(self._fd, 65536))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGKILL)
        self.process.wait()
        os.close(self._fd)


def _own_terminal() -> None:
    """Make standard input the terminal that Ctrl-C comes from."""
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)
