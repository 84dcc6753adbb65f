"""Hundreds of streams from several processes: each gets its own tokens and nobody else's."""

from __future__ import annotations

import json
import subprocess
import sys
import time

import pytest

import llmkernel
from tests.wire.storm import prompt

STREAMS, PROCESSES = 256, 4


@pytest.mark.timeout(90)
def test_no_token_reaches_another_stream_however_many_leave_early(start_worker):
    start_worker("scripted:step_ms=1,eos_after=100000", name="storm", max_concurrent=64)
    each = STREAMS // PROCESSES
    began = time.monotonic()
    children = [
        subprocess.Popen(
            [sys.executable, "-m", "tests.wire.storm", str(each * number), str(each)],
            stdout=subprocess.PIPE,
        )
        for number in range(PROCESSES)
    ]
    outputs = [child.communicate(timeout=60)[0] for child in children]
    took = time.monotonic() - began
    streams = [stream for output in outputs for stream in json.loads(output)]
    with llmkernel.connect() as llm:
        alone = {
            number: llm.generate(prompt(number), temperature=0, max_tokens=64, ignore_eos=True).text
            for number in range(0, STREAMS, 8)
        }
        rest = [number for number in range(STREAMS) if number not in alone]
        answers = llm.map(
            [prompt(number) for number in rest],
            temperature=0,
            max_tokens=64,
            ignore_eos=True,
            progress=False,
        )
        alone |= dict(zip(rest, map(str, answers), strict=True))
        assert len(set(alone.values())) > STREAMS * 0.9, "the answers tell the streams apart"
        for number, text, left in streams:
            assert text == (alone[number][: len(text)] if left else alone[number])
        left_early = sum(left for _, _, left in streams)
        assert len(streams) == STREAMS
        assert STREAMS * 0.2 < left_early < STREAMS * 0.4
        load = llm.status().load
        assert (load.running, load.waiting) == (0, 0)
    assert took < 60
