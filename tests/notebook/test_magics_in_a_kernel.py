"""The magics in a real kernel against a real worker: what a person sees, and what stays."""

from __future__ import annotations

import json
import os
import signal
import time

import pytest

from llmkernel import Client
from tests.conftest import wait_until

pytestmark = pytest.mark.timeout(90)


def load(connection):
    with Client(connection) as client:
        return client.status().load


def test_an_answer_is_one_output_that_grows_and_ends_with_its_statistics(notebook, start_worker):
    start_worker("scripted:step_ms=2,eos_after=500")
    cell = notebook.must("%%generate -t 0 -o out\nHello")
    kinds = [each["msg_type"] for each in cell.messages if "display" in each["msg_type"]]
    seconds = cell.times[-1] - cell.times[0]
    assert kinds[0] == "display_data"
    assert set(kinds[1:]) == {"update_display_data"}
    assert len(kinds) <= 25 * seconds + 3
    assert len({each["transient"]["display_id"] for each in cell.displays}) == 1
    texts = [each["data"]["text/plain"] for each in cell.displays[:-1]]
    assert all(cell.text.startswith(text) for text in texts)
    assert "tokens/s" in cell.markdown.splitlines()[-1]
    facts = cell.displays[-1]["metadata"]["llmkernel"]
    assert facts["usage"]["completion_tokens"] == 501  # and the end of sequence
    assert facts["timings"]["decode"] > 0
    assert notebook.must("out.text == str(out) and len(out.token_ids)").value == "501"


def test_where_outputs_are_compared_an_answer_is_published_once(open_notebook, scripted_worker):
    notebook = open_notebook(LLMKERNEL_STREAM="auto")
    first = notebook.must("%%generate -t 0\nHello")
    again = notebook.must("%%generate -t 0\nHello")
    assert [each["msg_type"] for each in first.messages if "display" in each["msg_type"]] == [
        "display_data"
    ]
    assert first.displays[0]["data"] == again.displays[0]["data"]
    assert first.displays[0]["metadata"]["llmkernel"]["usage"]["completion_tokens"] > 0


def test_the_prompt_reaches_the_worker_byte_for_byte(notebook, scripted_worker):
    body = 'JSON {"a": {"b": [1]}} \\frac{1}{2} {{1, 2}, {3}} {% x %} {# y #} $v ${w} %s {name}\n\n'
    notebook.must("name = '{{ other }} {name}'")
    cell = notebook.must(f"%%generate --raw -t 0 -n 9 -o out\n{body}{{{{ name }}}}")
    sent = body + "{{ other }} {name}"
    usage = cell.displays[-1]["metadata"]["llmkernel"]["usage"]
    assert usage["prompt_tokens"] == len(sent.encode()) + 1
    notebook.must("import llmkernel; llm = llmkernel.connect()")
    same = f"llm.generate({json.dumps(sent)}, temperature=0, max_tokens=9).text == out.text"
    assert notebook.must(same).value == "True"


def test_the_options_reach_the_worker(notebook, scripted_worker):
    cell = notebook.must('%%generate --system "be brief" -n 3 -t 0.5 --seed 7 -o out\nHi')
    assert cell.displays[-1]["metadata"]["llmkernel"]["parameters"] == {
        "max_tokens": 3,
        "temperature": 0.5,
        "seed": 7,
    }
    turns = [{"role": "system", "content": "be brief"}, {"role": "user", "content": "Hi"}]
    same = f"llm.chat({turns}, max_tokens=3, temperature=0.5, seed=7).text == out.text"
    assert notebook.must(f"import llmkernel; llm = llmkernel.connect()\n{same}").value == "True"
    assert "stopped at max_tokens" in cell.text


def test_several_answers_are_numbered_and_all_in_the_variable(notebook, scripted_worker):
    cell = notebook.must("%%generate --samples 3 --seed 1 -n 20 -o out\nHi")
    assert [line for line in cell.text.splitlines() if line.startswith("[")] == [
        "[1]",
        "[2]",
        "[3]",
    ]
    assert notebook.must("len({sample.text for sample in out.samples})").value == "3"


def test_log_probabilities_stand_under_the_answer(notebook, scripted_worker):
    cell = notebook.must("%%generate --logprobs 2 -n 3\nHi")
    assert "log-probability" in cell.markdown
    assert len(cell.of("display_data")) == 1


def test_without_a_number_there_are_alternatives_too(notebook, scripted_worker):
    cell = notebook.must("%%generate --logprobs -n 3 -o out\nHi")
    assert "likeliest" in cell.markdown
    assert notebook.must("len(out.logprobs[0].top)").value == "5"
    none = notebook.must("%%generate --logprobs 0 -n 3 -o out\nHi")
    assert "likeliest" not in none.markdown


def test_a_stop_text_that_is_a_token_is_no_sign_of_the_models(notebook, scripted_worker):
    notebook.must("%%generate --logprobs 1 -t 0 -n 6 -o out\nHi")
    notebook.must("last = out.logprobs[5].text")
    cell = notebook.must("%%generate --logprobs 1 -t 0 --stop {{ last }} -o out\nHi")
    assert notebook.must("out.stop_reason == last").value == "True"
    assert "Table of the tokens" in cell.displays[-1]["data"]["text/html"]
    assert "∎" not in cell.displays[-1]["data"]["text/html"]


def test_a_list_is_answered_in_one_batch(notebook, scripted_worker):
    notebook.must("cities = ['Bern', 'Oslo', 'Lima']")
    cell = notebook.must("%%generate --for city in cities -t 0 -o answers\nTell me of {{ city }}.")
    assert [line.split()[1] for line in cell.text.splitlines()[1:4]] == ["Bern", "Oslo", "Lima"]
    notebook.must("import llmkernel; llm = llmkernel.connect()")
    alone = "[llm.chat(f'Tell me of {city}.', temperature=0).text for city in cities]"
    assert notebook.must(f"[str(answer) for answer in answers] == {alone}").value == "True"


def test_a_data_frame_gets_a_data_frame_with_its_index(notebook, start_worker):
    start_worker("scripted:nan_for=bad")
    notebook.must(
        "import pandas as pd\n"
        "df = pd.DataFrame({'items': ['good', 'bad'], 'a b': [1, 2]}, index=['x', 'y'])"
    )
    cell = notebook.must(
        "%%generate --for row in df -t 0 -n 5 -o out\n{{ row.items }} {{ row['a b'] }}"
    )
    labels = [line.split()[0] for line in cell.text.splitlines()[1:3]]
    assert labels == ["x", "y"]
    assert "items: good, a b: 1" in cell.text
    assert notebook.must("list(out.index), list(out.columns)").value == (
        "(['x', 'y'], ['answer', 'error'])"
    )
    assert notebook.must("bool(out.answer.str.len()['x'] == len(out.answer['x']))").value == "True"
    assert notebook.must("len(out.answer['x'].token_ids), out.answer['y']").value == "(5, None)"
    assert notebook.must("out.error['x'], out.error['y'].split(':')[0]").value == (
        "(None, 'NumericalError')"
    )
    assert notebook.must("len(df.join(out))").value == "2"
    notebook.must("%%generate --for row in df -t 0 -n 5 --format json -o out\n{{ row.items }}")
    assert "generation" in notebook.must("list(out.columns)").value


def test_a_series_gets_a_series_and_what_is_no_json_an_error(notebook, scripted_worker):
    notebook.must("import pandas as pd\ns = pd.Series(['a', 'b'], index=[3, 5], name='s')")
    cell = notebook.must("%%generate --for x in s --format json -t 0 -n 5 -o out\n{{ x }}")
    assert "2 failed" in cell.text
    assert "NotJson" in cell.text
    assert notebook.must("list(out.index), out.name, type(out[3]).__name__").value == (
        "([3, 5], 's', 'NotJson')"
    )


def test_a_loop_has_one_bar_with_its_rate(notebook, start_worker):
    start_worker("scripted:step_ms=20,eos_after=60", max_concurrent=2)
    cell = notebook.must("%%generate --for x in range(8) -t 0 --ignore-eos -n {{ 40 }}\n{{ x }}")
    bars = [each["data"]["text/plain"] for each in cell.displays[:-1]]
    assert len(cell.of("display_data")) == 1
    assert bars
    assert all("of 8 answered" in bar for bar in bars)
    assert any("a second" in bar and "left" in bar for bar in bars)


def test_the_bar_is_there_before_the_first_answer(notebook, start_worker):
    start_worker("scripted:step_ms=20,eos_after=60")
    cell = notebook.must("%%generate --for x in range(8) -t 0 --ignore-eos -n 30\n{{ x }}")
    assert cell.displays[0]["data"]["text/plain"].endswith(" 0 of 8 answered")
    first = next(i for i, m in enumerate(cell.messages) if m["msg_type"] == "display_data")
    assert cell.times[-1] - cell.times[first] > 0.5  # thirty steps


def test_a_map_has_a_bar_that_a_notebook_can_be_saved_with(notebook, start_worker, tmp_path):
    start_worker("scripted:step_ms=10,eos_after=60", max_concurrent=2)
    notebook.must("import llmkernel; llm = llmkernel.connect()")
    ask = f"out = llm.map(list('abcdefgh'), temperature=0, checkpoint={str(tmp_path / 'c')!r})"
    cell = notebook.must(ask)
    assert len(cell.of("display_data")) == 1
    assert list(cell.displays[-1]["data"]) == ["text/plain"]
    assert "█ 8 of 8 answered" in cell.text
    assert "a second" in cell.text
    assert "left" not in cell.text
    assert any("left" in each["data"]["text/plain"] for each in cell.displays)
    again = notebook.must(ask)
    assert again.text.endswith("8 of 8 answered · 8 known before")
    assert notebook.must("llm.map(['a'], temperature=0, progress=False); 1").displays == []


def test_what_is_no_list_is_refused_before_anything_is_sent(notebook, scripted_worker):
    for expression, named in (("nothing", "NameError"), ("5", "type int"), ("'abc'", "type str")):
        cell = notebook.run(f"%%generate --for x in {expression}\n{{{{ x }}}}")
        assert cell.error["ename"] == "InvalidRequest"
        assert named in cell.error["evalue"]
    assert load(scripted_worker).requests_finished == 0


def test_items_whose_own_code_raises_lose_no_answer(notebook, scripted_worker):
    notebook.must(
        "class Mute:\n    n = 1\n    def __str__(self): raise ValueError('mute')\n"
        "def some():\n    yield 1\n    1 / 0"
    )
    cell = notebook.must("%%generate --for x in [Mute(), Mute()] -t 0 -n 3 -o out\n{{ x.n }}")
    assert "its text raised ValueError" in cell.text
    assert notebook.must("len(out), out[1].usage.completion_tokens").value == "(2, 3)"
    error = notebook.run("%%generate --for x in some()\n{{ x }}").error
    assert error["evalue"] == "--for: some() raised ZeroDivisionError: division by zero"
    assert not any("batch.py" in line for line in error["traceback"])


def test_a_failure_in_a_list_stays_in_its_place(notebook, start_worker):
    start_worker("scripted:nan_for=bad")
    cell = notebook.must("%%generate --for x in ['good', 'bad'] -t 0 -o found\n{{ x }}")
    assert "NumericalError" in cell.text
    assert "1 failed" in cell.text
    assert notebook.must("[type(each).__name__ for each in found]").value == (
        "['Generation', 'NumericalError']"
    )


def test_json_is_a_value_and_what_is_none_is_an_error(notebook, scripted_worker):
    cell = notebook.run("%%generate --format json -t 0 -n 5 -o data\nHi")
    assert cell.error["ename"] == "NotJson"
    assert "```json" in cell.markdown
    assert notebook.run("data").error["ename"] == "NameError"


def test_code_goes_into_the_next_cell(notebook, scripted_worker):
    cell = notebook.must("%%generate --format code -t 0 -n 9 -o out\nHi")
    assert "no code block in the answer" in cell.text
    (payload,) = cell.reply["payload"]
    assert payload["source"] == "set_next_input"
    assert payload["text"] == notebook.must("print(out, end='')").printed.strip("\n")


def test_code_from_the_background_goes_under_the_cell_that_asks_for_it(notebook, scripted_worker):
    notebook.must("%%generate --background --format code -t 0 -n 9 -o job\nHi")
    cell = notebook.must("out = job.result(timeout=30)")
    (payload,) = cell.reply["payload"]
    assert payload["source"] == "set_next_input"
    assert payload["text"] == notebook.must("print(out, end='')").printed.strip("\n")
    assert notebook.must("job.result()").reply["payload"] == []


def test_a_generation_in_the_background_is_a_handle(notebook, start_worker):
    start_worker("scripted:step_ms=20,eos_after=100")
    first = notebook.must("%%generate --background -t 0 -o job\nHi")
    assert first.displays[0]["data"] == {"text/plain": "…"}  # its place is in this cell
    assert notebook.must("job.done").value == "False"
    assert notebook.must("len(job.result(timeout=30).token_ids)").value == "101"
    assert notebook.must("job").value == "<Job in the background: done>"


def test_a_generation_in_the_background_can_be_awaited(notebook, start_worker):
    start_worker("scripted:step_ms=10,eos_after=100")
    notebook.must("%%generate --background -t 0 -o job\nHi")
    cell = notebook.must(
        "import asyncio\nticks = []\n"
        "async def tick():\n    while True:\n        ticks.append(1); await asyncio.sleep(0.01)\n"
        "task = asyncio.create_task(tick())\nanswer = await job\ntask.cancel()\n"
        "len(answer.token_ids), len(ticks) > 10"
    )
    assert cell.value == "(101, True)"
    notebook.must("%%generate --background --format json -t 0 -o job\nHi")
    assert notebook.run("await job").error["ename"] == "NotJson"


def test_stop_while_a_job_is_awaited_ends_the_wait_and_not_the_job(notebook, start_worker):
    start_worker("scripted:step_ms=10,eos_after=200")
    notebook.must("%%generate --background -t 0 -o job\nHi")
    sent = notebook.send("print('on')\nawait job")
    pressed = []

    def press(message):
        if message["msg_type"] == "stream" and not pressed:
            pressed.append(time.monotonic())
            time.sleep(0.2)
            notebook.interrupt()

    cell = notebook.follow(sent, press)
    assert cell.reply["status"] == "error"
    assert cell.times[-1] - pressed[0] < 1.5
    assert notebook.must("job.result(timeout=30).finish_reason").value == "'stop'"


def test_a_generation_in_the_background_can_be_cancelled(notebook, start_worker):
    worker = start_worker("scripted:step_ms=20,eos_after=1000")
    cell = notebook.must("%%generate --background -t 0\nHi")
    assert cell.value == "<Job in the background: running>"
    assert notebook.must("_.cancel(); _.result().finish_reason").value == "'cancelled'"
    wait_until(lambda: load(worker).running == 0, seconds=5, what="the request to end")


def test_captured_output_is_captured_once(notebook, scripted_worker):
    notebook.must("%%capture seen\n%generate -t 0 Hello")
    assert notebook.must("len(seen.outputs)").value == "1"


def test_defaults_are_for_this_notebook_and_an_option_goes_before_them(notebook, scripted_worker):
    notebook.must("%llm config -n 3 -t 0")
    assert notebook.must("%generate Hi").displays[-1]["metadata"]["llmkernel"]["parameters"] == {
        "max_tokens": 3,
        "temperature": 0.0,
    }
    longer = notebook.must("%generate -n 5 Hi").displays[-1]["metadata"]["llmkernel"]
    assert longer["parameters"]["max_tokens"] == 5
    notebook.must('%llm config --system "be brief" --stop "\\n"')
    assert "('\\n',)" in notebook.must("%llm config").text
    shown = notebook.must("%llm config --raw").text  # which has no place for a system text
    assert "brief" not in shown
    assert notebook.run("%llm config --raw --system x").error["ename"] == "InvalidRequest"
    assert notebook.must("%llm config").text == shown
    assert "max_tokens" not in notebook.must("%llm config --reset").text


def test_the_magics_are_configured_as_others_are(open_notebook, scripted_worker):
    notebook = open_notebook(loaded=False)
    notebook.must("%load_ext llmkernel\n%config LLMKernelMagics.defaults = '-n 3 -t 0'")
    shown = notebook.must("%llm config").text
    assert "max_tokens   3" in shown
    assert "temperature  0.0" in shown
    assert "3 tokens" in notebook.must("%generate Hi").text
    assert "LLMKernelMagics" in notebook.must("%config").printed
    wrong = notebook.run("%config LLMKernelMagics.defaults = '-n many'")
    assert "many" in str(wrong.error or wrong.printed)
    notebook.must("get_ipython().config.LLMKernelMagics.defaults = '-n 4'\n%reload_ext llmkernel")
    assert "max_tokens  4" in notebook.must("%llm config").text


def test_defaults_that_cannot_be_are_refused_and_the_old_ones_stay(notebook):
    notebook.must("%config LLMKernelMagics.defaults = '-n 3'")
    said = notebook.run("%config LLMKernelMagics.defaults = '--nonsense 1'").printed
    assert "LLMKernelMagics.defaults = '--nonsense 1'" in said
    assert "`%llm help config`" in said
    assert "Current: '-n 3'" in notebook.must("%config LLMKernelMagics").printed
    assert "max_tokens  3" in notebook.must("%llm config").text
    notebook.must("%config LLMKernelMagics.defaults = ''")


def test_everything_that_goes_wrong_is_an_error_of_the_cell(notebook):
    wrong = [
        ("%generate Hi", "WorkerNotFound", "%llm start"),
        ("%%generate --temprature 1\nHi", "InvalidRequest", "--temperature"),
        ("%%generate Hi\nHi", "InvalidRequest", "lines below"),
        ("%%generate\n\n \n", "InvalidRequest", "empty"),
        ("%%generate --quiet\nHi", "InvalidRequest", "-o VAR"),
        ("%llm start {{ nothing }}", "InvalidRequest", "'nothing' is undefined"),
        ("%llm strat", "InvalidRequest", "start"),
        ("%llm start --kv-cache many", "InvalidRequest", "2GiB"),
        ("%llm use nobody", "WorkerNotFound", "nobody"),
        ("%llm stop", "WorkerNotFound", "No worker"),
        ("%llm start scripted:fail_load=not_enough_memory", "NotEnoughMemory", "smaller"),
    ]
    for code, ename, named in wrong:
        cell = notebook.run(code)
        assert cell.reply["status"] == "error", code
        assert cell.error["ename"] == ename, code
        shown = "\n".join(cell.error["traceback"])
        assert named in shown, code
        assert len(shown.splitlines()) <= 4, shown


def test_a_name_without_a_value_is_named(notebook, scripted_worker):
    notebook.must("city = 'Bern'")
    cell = notebook.run("%%generate\nTell me of {{ cty }}")
    assert "'cty' is undefined. Did you mean 'city'?" in cell.error["evalue"]
    assert load(scripted_worker).requests_finished == 0


def test_a_worker_that_dies_leaves_the_text_and_an_error(notebook, start_worker):
    worker = start_worker("scripted:step_ms=10,eos_after=1000")

    def kill(message):
        if message["msg_type"] == "update_display_data":
            os.kill(worker.pid, signal.SIGKILL)

    cell = notebook.follow(notebook.send("%%generate -t 0\nHi"), kill)
    assert cell.error["ename"] == "WorkerDied"
    assert "broken off" in cell.text
    assert len(cell.text) > 20


@pytest.mark.parametrize("magic", ["%%generate", "%%chat"])
def test_what_a_worker_that_dies_has_said_is_in_the_variable(notebook, start_worker, magic):
    worker = start_worker("scripted:step_ms=10,eos_after=1000")

    def kill(message):
        if message["msg_type"] == "update_display_data":
            os.kill(worker.pid, signal.SIGKILL)

    cell = notebook.follow(notebook.send(f"{magic} -t 0 -o z\nHi"), kill)
    assert cell.error["ename"] == "WorkerDied"
    kept = notebook.must("print(z.text)").printed.strip()
    assert kept
    assert kept in cell.text
    assert notebook.run(f"{magic} -o nothing\nHi").error["ename"] == "WorkerNotFound"
    assert notebook.run("nothing").error["ename"] == "NameError"


def test_of_several_workers_one_must_be_chosen(notebook, start_worker):
    start_worker(name="one")
    start_worker(name="two")
    cell = notebook.run("%generate -n 1 Hi")
    assert "one, two" in cell.error["evalue"]
    assert "%llm use NAME" in cell.error["evalue"]
    notebook.must("%generate -n 1 -m two Hi")
    assert "Using one" in notebook.must("%llm use one").text
    chosen = notebook.must("%generate -n 1 Hi").displays[-1]["metadata"]["llmkernel"]["worker"]
    assert chosen == "one"
    listed = notebook.must("%llm list").text.splitlines()
    assert [line.split()[0] for line in listed] == ["name", "one*", "two"]


def test_a_client_in_a_notebook_is_of_the_worker_that_the_notebook_chose(notebook, start_worker):
    start_worker(name="one")
    start_worker(name="two")
    assert "one, two" in notebook.run("import llmkernel; llmkernel.connect()").error["evalue"]
    notebook.must("%llm start scripted --name two")
    assert notebook.must("llmkernel.connect().name").value == "'two'"
    notebook.must("%llm use one")
    assert notebook.must("llmkernel.connect().name").value == "'one'"
    assert notebook.must("llmkernel.connect('two').name").value == "'two'"
    notebook.must("%unload_ext llmkernel")
    assert "one, two" in notebook.run("llmkernel.connect()").error["evalue"]


def test_starting_shows_how_far_it_is_and_ends_in_one_line(notebook, runtime_dir):
    cell = notebook.must("%llm start scripted:load_ms=400 --name s -o llm")
    shown = [each["data"]["text/plain"] for each in cell.displays]
    assert any("█" in text and "%" in text for text in shown[:-1])
    assert shown[-1].startswith("s is ready: scripted:load_ms=400")
    assert len(cell.of("display_data")) == 1
    assert "already runs" in notebook.must("%llm start scripted:load_ms=400 --name s").text
    assert notebook.must("llm.name").value == "'s'"
    assert "ready" in notebook.must("%llm status").text
    assert "ready" in notebook.must("%llm logs -n 5").text
    assert notebook.must("%generate -n 3 -t 0 Hi").text
    assert notebook.must("%llm stop").text == "Stopped s."
    notebook.must("model = 'scripted'\n%llm start {{ model }} --name s")
    assert notebook.must("%generate -n 3 -t 0 Hi").text
    notebook.must("%llm stop s")


def test_a_start_that_fails_says_where_it_stopped(notebook, runtime_dir):
    cell = notebook.run("%llm start scripted:load_ms=50,fail_load=not_enough_memory")
    assert cell.text.startswith("Stopped while ")
    assert "ended here" not in cell.text


def test_tab_completes_in_a_cell(notebook, scripted_worker):
    assert notebook.complete("%%generate --te") == (["--temperature"], "--te")
    assert notebook.complete("%%generate -m s") == (["scripted"], "s")
    notebook.must("some_city = 'Bern'")
    assert notebook.complete("%%generate\nTell me of {{ some_c") == (["some_city"], "some_c")
    assert "start" in notebook.complete("%llm st")[0]


def test_help_is_on_the_magic(notebook):
    cell = notebook.must("%generate?")
    assert "--temperature" in cell.reply["payload"][0]["data"]["text/plain"]


def test_loading_brings_no_tensors_and_unloading_takes_everything_back(open_notebook):
    notebook = open_notebook()
    heavy = "[name for name in ('torch', 'transformers', 'numpy', 'pandas') if name in sys.modules]"
    assert notebook.must(f"import sys; {heavy}").value == "[]"
    notebook.must("%unload_ext llmkernel")
    assert (
        notebook.run("%llm list").error is None
    )  # IPython only prints that there is no such magic
    assert "UsageError" in notebook.run("%llm list").printed
    assert (
        notebook.must(
            "from llmkernel.errors import LLMKernelError; hasattr(LLMKernelError, '_render_traceback_')"
        ).value
        == "False"
    )
    notebook.must("%load_ext llmkernel\n%llm list")
