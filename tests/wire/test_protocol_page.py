"""docs/protocol.md says what the code does, and its client works."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import get_args

import pytest

from llmkernel import protocol
from tests.wire.raw import RawClient

pytestmark = pytest.mark.timeout(60)

ROOT = Path(__file__).parent.parent.parent
PAGE = ROOT / "docs" / "protocol.md"
TOOL = ROOT / "tools" / "protocol_tables.py"


def check():
    return subprocess.run(
        [sys.executable, str(TOOL), "--check"], capture_output=True, text=True, check=False
    )


def test_the_tables_are_up_to_date():
    assert check().returncode == 0, "run python tools/protocol_tables.py"


def test_a_page_that_is_out_of_date_is_noticed():
    text = PAGE.read_text()
    sys.path.insert(0, str(TOOL.parent))
    try:
        import protocol_tables

        assert protocol_tables.page(text) == text
        assert protocol_tables.page(text.replace("required", "optional")) == text
    finally:
        sys.path.remove(str(TOOL.parent))


def test_every_message_has_a_section():
    text = PAGE.read_text()
    for cls in (*get_args(protocol.ClientMessage), *get_args(protocol.WorkerMessage)):
        assert f"### `{cls.__struct_config__.tag}`" in text


def test_the_client_on_the_page_works(served, tmp_path):
    code = re.search(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)[1]
    assert "llmkernel" not in code
    program = tmp_path / "client.py"
    program.write_text(code.replace('{"max_tokens": 100}', '{"max_tokens": 30, "temperature": 0}'))
    done = subprocess.run(
        [sys.executable, str(program), str(served.connection.path), "hello"],
        capture_output=True,
        text=True,
        check=True,
        timeout=30,
    )
    with RawClient(served.connection) as raw:
        raw.submit(prompt="hello", max_tokens=30, stream=False)
        assert done.stdout.strip() == raw.terminal().outputs[0].text.strip()


@pytest.mark.parametrize("message", [protocol.Hello(), protocol.Watch(), protocol.Submit(id=3)])
def test_messages_survive_the_wire_and_defaults_stay_at_home(message):
    data = protocol.encode(message)
    assert protocol.decode_client(data) == message
    assert len(data) < 40
