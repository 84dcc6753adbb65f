"""The panel in a real kernel, as a front end without a page talks to it.

`python tools/other_kernels.py` runs this file on other versions of ipykernel, whose routing of
comm messages differs.
"""

from __future__ import annotations

import json
import time

import pytest

from tests.conftest import wait_until

pytestmark = pytest.mark.timeout(90)

SLOW = "scripted:step_ms=10,eos_after=1500"
VIEW = "application/vnd.jupyter.widget-view+json"


class Page:
    """The comm of one panel, from a front end that has a thread of its own in the kernel."""

    def __init__(self, notebook, cell):
        self.notebook = notebook
        (self.bundle,) = (each["data"] for each in cell.displays if VIEW in each["data"])
        self.id = self.bundle[VIEW]["model_id"]
        self.subshell = self._subshell()

    def _subshell(self):
        client = self.notebook.client
        if "kernel subshells" not in client.kernel_info(reply=True, timeout=30)["content"].get(
            "supported_features", []
        ):
            return None
        message = client.session.msg("create_subshell_request", {})
        client.control_channel.send(message)
        return client.get_control_msg(timeout=30)["content"]["subshell_id"]

    def send(self, **content):
        """What a click sends."""
        session = self.notebook.client.session
        data = {"method": "custom", "content": content}
        message = session.msg("comm_msg", {"comm_id": self.id, "data": data})
        if self.subshell:
            message["header"]["subshell_id"] = self.subshell
        self.notebook.client.shell_channel.send(message)

    def follow(self, over, seconds=30):
        """The panel's messages until one of them is what was waited for."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            message = self.notebook.client.get_iopub_msg(timeout=seconds)
            content = message["content"]
            if message["msg_type"] != "comm_msg" or content["comm_id"] != self.id:
                continue
            told = content["data"].get("content", {})
            if over(told):
                return told
        raise AssertionError("it did not come")


def has_state(state):
    def over(told):
        parts = (told.get("turns", {}) | told.get("change", {})).values()
        return any(part.get("state") == state for part in parts)

    return over


@pytest.fixture(autouse=True)
def closed(notebook):
    """No panel of the shared kernel looks for workers after its test."""
    yield
    notebook.run("panel.close()")


@pytest.fixture
def page(notebook, start_worker):
    start_worker(SLOW)
    notebook.must("import llmkernel")
    return Page(notebook, notebook.must("panel = llmkernel.ChatPanel(temperature=0)\npanel"))


def test_it_answers_and_stops_while_the_main_thread_is_busy(notebook, page):
    if page.subshell is None:
        pytest.skip("this ipykernel has no subshells: there a click waits for the cell")
    latencies = []
    busy = notebook.send("import time\nfor _ in range(80): time.sleep(0.1); panel.name")
    for number in range(3):
        page.send(do="send", text=f"Hi {number}")
        page.follow(lambda told: "add" in told)
        began = time.monotonic()
        page.send(do="stop")
        page.follow(has_state("stopped"))
        latencies.append(time.monotonic() - began)
    print("stop:", *(f"{1000 * seconds:.0f} ms" for seconds in latencies))
    assert min(latencies) < 0.1
    assert max(latencies) < 2  # the cell takes eight seconds
    notebook.interrupt()
    notebook.follow(busy)


def test_the_panel_knows_whether_a_click_waits_for_a_running_cell(notebook, page):
    through = page.subshell
    page.subshell = None
    page.send(do="look")
    page.follow(lambda told: told.get("set", {}).get("clicks_wait") is True)
    if through is not None:
        page.subshell = through
        page.send(do="look")
        page.follow(lambda told: told.get("set", {}).get("clicks_wait") is False)


def test_after_the_cell_itself_has_published_a_click_still_does_not_wait(notebook, page):
    """What a cell sends on the comm must not draw the answers to it into the cell's thread."""
    if page.subshell is None:
        pytest.skip("this ipykernel has no subshells: there a click waits for the cell")
    busy = notebook.send("panel.system = 'x'\nimport time\nfor _ in range(80): time.sleep(0.1)")
    page.follow(lambda told: told.get("set", {}).get("system") == "x")
    began = time.monotonic()
    page.send(do="draft", text="typed", by="me")
    page.follow(lambda told: told.get("set", {}).get("draft", {}).get("text") == "typed")
    assert time.monotonic() - began < 2
    notebook.interrupt()
    notebook.follow(busy)


def test_python_asks_and_gets_the_answer_and_an_interrupt_stops_it(notebook, page):
    assert notebook.must("panel.params = {'max_tokens': 5}; len(panel.ask('Hi'))").value
    roles = notebook.must("print([m['role'] for m in panel.conversation])").printed
    assert roles.strip() == "['user', 'assistant']"
    notebook.must("panel.params = {}")
    sent = notebook.send("panel.ask('A long story')")
    page.follow(lambda told: "add" in told)
    notebook.interrupt()
    assert notebook.follow(sent).error["ename"] == "KeyboardInterrupt"
    answering = "panel._desk.answering is None"
    wait_until(lambda: notebook.must(answering).value == "True", seconds=10, what="the end")
    assert notebook.must("panel.conversation[-1]['content'] != ''").value == "True"


def test_a_cell_that_is_run_again_lets_its_panel_go(notebook, page):
    held = "len(__import__('ipywidgets').widgets.widget._instances)"
    before = int(notebook.must(held).value)
    for _ in range(4):
        notebook.must("panel = llmkernel.ChatPanel()\npanel", cell="one")
    assert int(notebook.must(held).value) - before <= 3  # the panel, its layout and style
    notebook.must("panel", cell="two")
    notebook.must("llmkernel.ChatPanel()", cell="two")
    assert notebook.must("panel._widget is not None").value == "True"  # cell one shows it still


def test_its_text_is_always_the_same(notebook, page):
    assert page.bundle["text/plain"] == "ChatPanel", "what would go stale is not in it"


def test_messages_from_python_are_checked(notebook, page):
    assert notebook.run("panel.conversation = [1]").error["ename"] == "InvalidRequest"
    assert notebook.run("panel.params = {'n': 2}").error["ename"] == "InvalidRequest"
    assert notebook.run("panel.attach(3)").error["ename"] == "InvalidRequest"
    assert notebook.run("llmkernel.ChatPanel(temprature=1)").error["ename"] == "InvalidRequest"


def test_conversations_go_to_files_and_come_back(notebook, page, tmp_path):
    notebook.must("panel.params = {'max_tokens': 5}; panel.ask('Hi'); before = panel.conversation")
    for name in ("talk.json", "talk.md"):
        file = json.dumps(str(tmp_path / name))
        notebook.must(f"panel.save({file}); panel.load({file})")
        same = "[{k: v.strip() for k, v in m.items()} for m in %s]"
        compared = f"{same % 'panel.conversation'} == {same % 'before'}"
        assert notebook.must(compared).value == "True"
    assert notebook.must("len(panel.conversations)").value == "3"


def test_where_outputs_are_compared_there_is_the_transcript_alone(open_notebook, start_worker):
    start_worker("scripted")
    notebook = open_notebook(LLMKERNEL_STREAM="0")
    notebook.must("import llmkernel; panel = llmkernel.ChatPanel(temperature=0, max_tokens=9)")
    notebook.must("_ = panel.ask('Hi')")
    cell = notebook.must("panel")
    (shown,) = cell.displays
    assert VIEW not in shown["data"]
    assert shown["data"]["text/plain"].startswith("Conversation 1\n\nYou: Hi\n\nModel: ")
    assert notebook.must("panel").displays[0]["data"] == shown["data"]


def test_the_magic_shows_one_and_goes_on_with_a_conversation_of_cells(notebook, start_worker):
    start_worker("scripted")
    notebook.must("%%chat trip -t 0 -n 5\nWhere to?")
    cell = notebook.must("%llm panel trip -t 0.5 --system 'Be brief.' -o panel")
    assert VIEW in cell.displays[0]["data"]
    assert notebook.must("panel.name, panel.params, len(panel.conversation)").value == (
        "('trip', {'temperature': 0.5}, 3)"
    )


def test_the_magic_reads_its_options_as_a_cell_does(notebook, start_worker):
    start_worker("scripted")
    notebook.must(r'%llm panel --stop "\n" -o panel')
    assert notebook.must("panel.params").value == r"{'stop': ('\n',)}"


def test_without_anywidget_there_are_boxes_and_buttons(open_notebook, start_worker):
    start_worker("scripted")
    notebook = open_notebook()
    notebook.must("import sys; sys.modules['anywidget'] = None; import llmkernel")
    notebook.must("panel = llmkernel.ChatPanel(temperature=0, max_tokens=9)")
    assert VIEW in notebook.must("panel").displays[0]["data"]
    notebook.must("log, box, buttons = panel.widget.children")
    notebook.must("box.value = 'Hi there'; buttons.children[0].click()")
    state = "panel._desk.answering is None and 'Hi there' in log.value and len(panel.conversation)"
    wait_until(lambda: notebook.must(state).value == "2", seconds=20, what="the answer")
    assert notebook.must("box.value").value == "''"
    notebook.must("buttons.children[2].click()")
    wait_until(
        lambda: notebook.must("len(panel._desk.current.turns)").value == "3",
        seconds=20,
        what="another answer",
    )
