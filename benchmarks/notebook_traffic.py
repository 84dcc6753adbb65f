"""What a chat panel costs on a notebook's iopub channel: messages and bytes of one answer.

    python -m benchmarks.notebook_traffic [--tokens 2000] [--tokens-per-second 200]

A kernel of its own shows a panel over a scripted worker; everything that the kernel sends to its
front ends from the question to the end of the answer is counted, envelopes, the state of the
worker and the transcript in the saved notebook included. The peer in the same run is a display
that is updated with the whole text for each token, which is what most notebook tools do.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from typing import Any, NamedTuple

from benchmarks import command

MOST_BYTES = 200_000
"""For 2,000 tokens."""


class Traffic(NamedTuple):
    """What came on iopub."""

    messages: int
    bytes: int
    seconds: float
    updates: int

    def line(self, name: str) -> str:
        """One row of the table."""
        rate = self.updates / self.seconds if self.seconds else 0.0
        return (
            f"{name:28} {self.messages:6,} messages {self.bytes:12,} bytes "
            f"{self.seconds:6.1f} s {rate:7.1f} updates/s"
        )


_LONGEST_SECONDS = 300.0


class Front:
    """A front end that counts."""

    def __init__(self) -> None:
        from jupyter_client.manager import KernelManager

        self.manager = KernelManager()
        self.manager.start_kernel(env=os.environ | {"LLMKERNEL_STREAM": "1"})
        self.client = self.manager.client()
        self.client.start_channels()
        self.client.wait_for_ready(timeout=60)

    def run(self, code: str) -> list[dict[str, Any]]:
        """Run a cell; the contents of its messages."""
        sent = self.client.execute(code)
        contents = []
        while True:
            message = self.client.get_iopub_msg(timeout=60)
            contents.append(message["content"] | {"msg_type": message["msg_type"]})
            if message["parent_header"].get("msg_id") == sent:
                if message["msg_type"] == "error":
                    raise SystemExit(message["content"]["evalue"])
                if message["content"].get("execution_state") == "idle":
                    return contents

    def count(self, code: str, over: str) -> Traffic:
        """Run a cell and count until a message has `over` in it and nothing has come for a second."""
        began = time.monotonic()
        self.client.execute(code)
        messages = size = updates = 0
        ended = None
        while ended is not None or time.monotonic() - began < _LONGEST_SECONDS:
            try:
                parts = self.client.iopub_channel.socket.poll(1000)
            except KeyboardInterrupt:
                raise SystemExit(1) from None
            if not parts:
                if ended is not None:
                    return Traffic(messages, size, ended - began, updates)
                continue
            frames = self.client.iopub_channel.socket.recv_multipart()
            text = b"".join(frames)
            messages, size = messages + 1, size + len(text)
            updates += b'"add"' in text or b"update_display_data" in text
            if over.encode() in text.replace(b'": ', b'":'):  # packers differ in blanks
                ended = time.monotonic()
        raise SystemExit(f"{over} did not come in {_LONGEST_SECONDS:.0f} s.")

    def close(self) -> None:
        """End the kernel."""
        self.client.stop_channels()
        self.manager.shutdown_kernel(now=True)


def panel(front: Front, tokens: int) -> Traffic:
    """An answer in a panel."""
    front.run(f"import llmkernel; p = llmkernel.ChatPanel(max_tokens={tokens}, ignore_eos=True)")
    front.run("p")
    ask = json.dumps({"do": "send", "text": "Tell me"})
    return front.count(f"p._desk.take({ask})", '"reason":"length"')


def display(front: Front, tokens: int) -> Traffic:
    """The same text in a display that is updated for each token."""
    code = (
        "from IPython.display import Markdown, display\n"
        "text, shown = '', display(Markdown(''), display_id=True)\n"
        f"for delta in llmkernel.connect().stream('Tell me', max_tokens={tokens}, ignore_eos=True):\n"
        "    text += str(delta); shown.update(Markdown(text))\n"
        "print('it is over')"
    )
    return front.count(code, "it is over")


def main() -> None:
    """Measure both and print them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tokens", type=command.positive, default=2000)
    parser.add_argument("--tokens-per-second", type=command.positive, default=200)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="lk-") as folder:
        os.environ |= {"JUPYTER_RUNTIME_DIR": folder, "XDG_RUNTIME_DIR": folder}
        import llmkernel

        step = 1000 / arguments.tokens_per_second
        model = f"scripted:step_ms={step:g},eos_after={arguments.tokens + 9},context_length=65536"
        worker = llmkernel.start(model, progress=False)
        front = Front()
        try:
            ours = panel(front, arguments.tokens)
            print(f"{arguments.tokens} tokens at {arguments.tokens_per_second}/s")
            print(ours.line("chat panel"))
            print(display(front, arguments.tokens).line("display, once for each token"))
        finally:
            front.close()
            worker.stop(drain=False)
    limit = MOST_BYTES * arguments.tokens / 2000
    print(f"the panel's limit is {limit:,.0f} bytes: {'kept' if ours.bytes <= limit else 'BROKEN'}")


if __name__ == "__main__":
    command.run(main)
