"""One event is one line, whatever a reader takes for the end of one."""

from __future__ import annotations

import json

from hypothesis import example, given
from hypothesis import strategies as st

from llmkernel.gateway import dialects

BREAKS = "\n\r\x0b\x0c\x1c\x1d\x1e\x85\u2028\u2029"


@example(BREAKS)
@given(st.text(st.one_of(st.sampled_from(BREAKS), st.characters(exclude_categories=["Cs"]))))
def test_no_text_breaks_a_line(text):
    data = dialects.encode({"text": text})
    (event,) = dialects.sse(data).decode().splitlines()[:-1]
    assert json.loads(event.removeprefix("data: ")) == {"text": text}
    (line,) = dialects.line(data).decode().splitlines()
    assert json.loads(line) == {"text": text}


def test_an_answer_with_such_characters_is_read_line_by_line(scripted):
    inputs = "a\x85b\u2028c\u2029d"
    body = {"inputs": inputs, "parameters": {"return_full_text": True, "max_new_tokens": 2}}
    events = scripted.events("/generate_stream", body)
    assert events[-1]["generated_text"].startswith(inputs)
