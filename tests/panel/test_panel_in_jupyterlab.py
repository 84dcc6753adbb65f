"""The panel in a real JupyterLab: what a person does, and what they see."""

from __future__ import annotations

import json

import nbformat
import pytest
from nbconvert import HTMLExporter, MarkdownExporter

from llmkernel.notebook.panel.conversation import ROLES
from tests.panel.attacks import BUNDLE, PAYLOADS, SHOW
from tests.panel.conftest import LONG_MS, MODEL, Panel
from tests.panel.scripts import CLICK_STOP, TOO_WIDE, VIOLATIONS

pytestmark = [pytest.mark.slow, pytest.mark.timeout(200)]


def test_an_answer_streams_while_a_cell_runs_and_stop_acts_at_once(book):
    panel = book.panel()
    latencies = []
    busy = book.run("import time; time.sleep(60)", wait=False)
    for number in range(5):
        panel.send(f"Question {number}", wait=False)
        body = panel.answers.last.locator(".llmk-body")
        panel.until(lambda body=body: len(body.inner_text()) > 40)
        latencies.append(panel.root.evaluate(CLICK_STOP))
    assert "[*]" in busy.locator(".jp-InputPrompt").inner_text(), "the cell had ended before"
    print("stop under a busy kernel:", *(f"{ms:.0f} ms" for ms in latencies))
    assert min(latencies) <= 100  # a click that waited for the cell would take seconds each time
    book.interrupt()
    assert panel.answers.count() == 5
    assert panel.root.locator(".llmk-stopped").count() == 5


def test_escape_stops_too(book):
    panel = book.panel()
    panel.send("A long story", wait=False)
    panel.until(lambda: panel.answers.last.locator(".llmk-body").inner_text())
    panel.box.press("Escape")
    panel.rest()
    assert panel.root.locator(".llmk-stopped").count() == 1


def test_python_and_the_page_hold_the_same_conversation(book):
    panel = book.panel("panel = llmkernel.ChatPanel('slow', max_tokens=20, temperature=0)\npanel")
    panel.send("Hello")
    messages = json.loads(book.value("__import__('json').dumps(panel.conversation)"))
    assert [message["role"] for message in messages] == ["user", "assistant"]
    assert messages[0]["content"] == "Hello"
    assert messages[1]["content"].strip() == panel.answers.first.locator(".llmk-body").inner_text()
    book.run("panel.conversation = [{'role': 'user', 'content': 'from Python'}]")
    panel.until(lambda: panel.questions.count() == 1 and panel.answers.count() == 0)
    assert panel.questions.first.locator(".llmk-body").inner_text() == "from Python"


def test_edit_and_regenerate_make_branches_and_the_arrows_lead_between_them(book):
    panel = book.panel("panel = llmkernel.ChatPanel('slow', max_tokens=12, seed=1)\npanel")
    panel.send("First question")
    first = panel.answers.last.locator(".llmk-body").inner_text()
    panel.questions.last.hover()
    panel.press("Edit", inside=panel.questions.last)
    panel.questions.last.locator("textarea").fill("Second question")
    panel.press("Save and answer")
    panel.until(lambda: "Second question" in panel.questions.last.inner_text())
    panel.rest()
    assert panel.questions.last.locator(".llmk-place").inner_text() == "2/2"
    assert panel.answers.last.locator(".llmk-body").inner_text() != first
    panel.press("Branch before")
    panel.until(lambda: panel.answers.last.locator(".llmk-body").inner_text() == first)
    panel.press("Regenerate")
    panel.until(lambda: panel.answers.last.locator(".llmk-place").count())
    panel.rest()
    assert panel.answers.last.locator(".llmk-place").inner_text() == "2/2"
    panel.press("Delete with all that follows", inside=panel.answers.last)
    panel.until(lambda: panel.answers.last.locator(".llmk-place").count() == 0)
    assert panel.answers.last.locator(".llmk-body").inner_text() == first


def test_a_worker_that_does_not_run_is_named_and_another_offered(book):
    book.panel()
    book.run("other = llmkernel.ChatPanel('foo', max_tokens=5)\nother")
    root = book.page.locator(".llmk").last
    root.locator(".llmk-problem", has_text="No worker 'foo' runs. Running: slow.").wait_for()
    assert root.locator(".llmk-worker-words").inner_text() == "foo does not run"
    root.locator(".llmk-box").fill("Hi")
    send = root.locator(".llmk-send")
    assert send.is_disabled()
    assert "No worker 'foo' runs" in send.get_attribute("title")
    root.get_by_role("button", name="Choose a worker").click()
    root.locator(".llmk-menu").get_by_role("button", name="slow").click()
    panel = Panel(book, root)
    panel.until(lambda: root.locator(".llmk-problem").inner_text() == "")
    panel.box.press("Enter")
    panel.until(lambda: panel.answers.count() == 1)
    panel.rest()


def test_what_was_deleted_can_be_undone_with_the_keyboard(book):
    panel = book.panel("panel = llmkernel.ChatPanel('slow', max_tokens=8, temperature=0)\npanel")
    panel.send("First")
    panel.send("Second")
    notice = panel.root.locator(".llmk-notice")
    panel.questions.first.hover()
    panel.press("Delete with all that follows", inside=panel.questions.first)
    panel.until(lambda: panel.questions.count() == 0)
    assert notice.inner_text().split("\n")[0] == "Deleted 4 turns."
    assert notice.get_attribute("role") == "status"
    book.page.keyboard.press("Enter")  # the focus is on Undo
    panel.until(lambda: panel.answers.count() == 2)
    assert notice.inner_text() == ""
    panel.press("Delete with all that follows", inside=panel.answers.last)
    panel.until(lambda: "Deleted 1 turn." in notice.inner_text())
    panel.send("Third")
    assert notice.inner_text() == "", "the next change"


def test_continue_goes_on_inside_the_answer_and_a_start_is_its_beginning(book):
    panel = book.panel("panel = llmkernel.ChatPanel('slow', max_tokens=12, temperature=0)\npanel")
    panel.press("Start the reply with …")
    start = panel.root.get_by_label("Start the reply with", exact=True)
    height = start.evaluate("(box) => box.offsetHeight")
    panel.box.fill("Go")
    start.fill("Well then,\n\n```python\n")
    assert start.evaluate("(box) => box.offsetHeight") > height, "it grows"
    start.press("Shift+Enter")
    assert panel.answers.count() == 0
    start.press("Enter")
    panel.until(lambda: panel.answers.count() == 1)
    panel.rest()
    assert not start.is_visible()
    said = book.value(
        "panel.conversation[-1]['content'].startswith('Well then,\\n\\n```python\\n\\n')"
    )
    assert said == "True"
    text = panel.answers.last.locator(".llmk-body").inner_text()
    assert text.startswith("Well then,")
    panel.press("Continue this answer")
    panel.until(lambda: len(panel.answers.last.locator(".llmk-body").inner_text()) > len(text) + 6)
    panel.rest()
    assert panel.answers.last.locator(".llmk-body").inner_text().startswith(text)
    assert panel.answers.count() == 1


CODE = "Some code:\n\n```python\nprint(6 * 7)\n```\n\n$$x^2$$\n\n| a | b |\n|---|---|\n| 1 | 2 |"
SAID = f"[{{'role': 'user', 'content': 'x'}}, {{'role': 'assistant', 'content': {CODE!r}}}]"


def test_code_goes_into_a_new_cell_and_onto_the_clipboard(book):
    panel = book.panel(f"panel = llmkernel.ChatPanel('slow', conversation={SAID})\npanel")
    assert panel.root.locator(".hljs-number").count() == 2
    assert panel.root.locator("math").count() == 1
    assert panel.root.locator("table td").count() == 2
    book.run("1")
    panel.press("Insert into a new cell")
    cells = f"() => {{ {MODEL}; return m.cells.map(cell => cell.source); }}"
    sources = book.page.evaluate(cells)
    assert sources[-2:] == ["print(6 * 7)", "1"]
    book.page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    panel.press("Copy code")
    panel.until(lambda: panel.root.locator(".llmk-did").count())
    assert book.page.evaluate("() => navigator.clipboard.readText()") == "print(6 * 7)"


def test_a_data_frame_goes_along_as_a_chip_with_its_cost(book):
    panel = book.panel(
        "import pandas\nsales = pandas.DataFrame({'city': ['Rome', 'Oslo'], 'sum': [3, 4]})\n"
        "panel = llmkernel.ChatPanel('slow', max_tokens=10, temperature=0)\npanel"
    )
    panel.press("Attach a variable or a file")
    panel.root.get_by_role("button", name="sales").click()
    chip = panel.root.locator(".llmk-pending .llmk-chip")
    panel.until(lambda: "tokens" in chip.inner_text())
    assert "DataFrame, 2 rows, 2 columns" in chip.inner_text()
    panel.send("Which city?")
    assert panel.root.locator(".llmk-pending .llmk-chip").count() == 0
    assert "sales" in panel.questions.last.locator(".llmk-chip").inner_text()
    content = book.value("panel.conversation[0]['content']")
    assert "```csv" in content
    assert "Rome" in content
    assert content.endswith("Which city?")


def test_a_prompt_that_does_not_fit_says_so_and_is_kept(book):
    panel = book.panel()
    long = "many words " * 500
    panel.box.fill(long)
    panel.until(lambda: "Too long to send" in panel.root.locator(".llmk-fit").inner_text())
    assert panel.root.locator(".llmk-send").is_disabled()
    panel.box.press("Enter")
    assert panel.box.input_value() == long
    # sent before it could be counted: refused by the worker, and back in the box
    panel.box.fill("")
    panel.until(lambda: panel.root.locator(".llmk-fit").inner_text() == "")
    panel.box.fill(long)
    panel.box.press("Enter")
    panel.until(
        lambda: (
            panel.root.locator(".llmk-problem").inner_text() != ""
            or "Too long to send" in panel.root.locator(".llmk-fit").inner_text()
        )
    )
    panel.until(lambda: panel.box.input_value() == long.strip() or panel.box.input_value() == long)
    assert panel.questions.count() == 0


def test_two_views_agree_and_typed_text_is_in_the_other_one(book):
    panel = book.panel("panel = llmkernel.ChatPanel('slow', max_tokens=15, temperature=0)\npanel")
    book.run("panel")
    other = book.view(-1)
    panel = book.view(0)
    panel.send("Hello both")
    text = panel.answers.last.locator(".llmk-body").inner_text()
    assert other.answers.last.locator(".llmk-body").inner_text() == text
    panel.box.type("half a sent")
    panel.until(lambda: other.box.input_value() == "half a sent")
    assert panel.box.input_value() == "half a sent"


def test_the_page_is_loaded_again_in_the_middle_of_an_answer(book):
    panel = book.panel()
    panel.send("Tell me", wait=False)
    panel.until(lambda: len(panel.answers.last.locator(".llmk-body").inner_text()) > 40)
    panel.box.type("not sent yet")
    book.save()
    book.open()
    panel = book.view(0)
    panel.until(lambda: panel.answers.count())
    panel.until(lambda: len(panel.answers.last.locator(".llmk-body").inner_text()) > 80)
    assert panel.box.input_value() == "not sent yet"
    panel.root.evaluate(CLICK_STOP)
    text = panel.answers.last.locator(".llmk-body").inner_text()
    assert book.value("panel.conversation[1]['content'].strip()") == text.strip()


def test_a_second_tab_that_opens_late_shows_everything_and_follows(book, open_tab):
    panel = book.panel()
    panel.send("Tell me", wait=False)
    panel.until(lambda: len(panel.answers.last.locator(".llmk-body").inner_text()) > 40)
    book.save()
    tab = open_tab()
    late = tab.view(0)
    late.until(lambda: len(late.answers.last.locator(".llmk-body").inner_text()) > 100)
    panel.root.evaluate(CLICK_STOP)
    late.rest()
    texts = [one.answers.last.locator(".llmk-body").inner_text() for one in (panel, late)]
    assert texts[0] == texts[1]
    late.box.type("from the late tab")
    panel.until(lambda: panel.box.input_value() == "from the late tab")


def test_several_conversations_have_names_and_go_to_files_and_back(book, tmp_path):
    panel = book.panel("panel = llmkernel.ChatPanel('slow', max_tokens=8, temperature=0)\npanel")
    panel.send("One")
    panel.press("New conversation")
    panel.until(lambda: panel.answers.count() == 0)
    panel.send("Two")
    panel.root.locator(".llmk-pill").first.click()
    panel.root.get_by_label("Name of this conversation").fill("Second")
    panel.press("Rename")
    panel.until(lambda: "Second" in panel.root.locator(".llmk-pill").first.inner_text())
    panel.root.locator(".llmk-pill").first.click()
    with book.page.expect_download() as download:
        panel.press("Export as JSON")
    file = tmp_path / download.value.suggested_filename
    download.value.save_as(file)
    assert file.name == "Second.json"
    book.page.keyboard.press("Escape")
    panel.root.locator(".llmk-pill").first.click()
    panel.root.get_by_role("button", name="Conversation 1").click()
    panel.until(lambda: "One" in panel.questions.first.inner_text())
    panel.root.locator(".llmk-pill").first.click()
    panel.root.get_by_label("A saved conversation").set_input_files(file)
    panel.until(lambda: "Two" in panel.questions.first.inner_text())
    assert book.value("panel.conversations") == "['Conversation 1', 'Second', 'Second (2)']"


def test_an_imported_conversation_is_shown_from_its_end(book, tmp_path):
    said = [{"role": role, "content": f"{n} {role}\n\n" * 9} for n in range(9) for role in ROLES]
    panel = book.panel(f"panel = llmkernel.ChatPanel('slow', conversation={said})\npanel")
    file = tmp_path / "long.json"
    file.write_text(json.dumps(said))
    log = panel.root.locator(".llmk-log")
    log.evaluate("(log) => { log.scrollTop = 0; }")
    panel.root.locator(".llmk-to-end.llmk-shown").wait_for()
    panel.root.locator(".llmk-pill").first.click()
    panel.root.get_by_label("A saved conversation").set_input_files(file)
    panel.until(lambda: "Imported" in panel.root.locator(".llmk-pill").first.inner_text())
    panel.until(lambda: panel.questions.count() == 9)
    left = "(log) => log.scrollHeight - log.scrollTop - log.clientHeight"
    panel.until(lambda: log.evaluate(left) < 5)


def test_controls_reach_the_model_and_what_cannot_be_is_said(book):
    panel = book.panel("panel = llmkernel.ChatPanel('slow', max_tokens=8)\npanel")
    panel.press("Controls")
    panel.root.get_by_label("Seed").fill("7")
    panel.root.get_by_label("Max tokens").fill("5")
    panel.root.get_by_label("System prompt").fill("Be brief.")
    panel.root.get_by_label("Top-k", exact=True).fill("40")
    panel.press("Close controls")
    panel.until(lambda: book.value("panel.params.get('top_k')") == "40")
    assert book.value("panel.params") == "{'max_tokens': 5, 'seed': 7, 'top_k': 40}"
    assert book.value("panel.system") == "Be brief."
    panel.send("Hi")
    assert "5 tokens" in panel.answers.last.locator(".llmk-facts").inner_text()
    panel.press("Controls")
    panel.root.get_by_label("Preset", exact=True).select_option("Exact")
    panel.until(lambda: book.value("panel.params") == "{'temperature': 0.0}")
    panel.root.get_by_label("Max tokens").fill("-3")
    panel.root.get_by_label("Max tokens").press("Tab")
    panel.until(lambda: "max_tokens must be" in panel.root.locator(".llmk-problem").inner_text())


def test_a_preset_is_there_after_a_restart_and_can_be_forgotten(book):
    panel = book.panel("panel = llmkernel.ChatPanel('slow', seed=7)\npanel")
    panel.press("Controls")
    preset = panel.root.get_by_label("Preset", exact=True)
    assert not panel.root.get_by_label("Forget this preset").is_visible()
    panel.root.get_by_label("Name of a new preset").fill("mine <b>")
    panel.press("Keep")
    panel.until(lambda: "mine <b>" in preset.inner_text())
    book.restart()
    book.run("import llmkernel")
    panel = book.panel("panel = llmkernel.ChatPanel('slow')\npanel")
    panel.press("Controls")
    preset = panel.root.get_by_label("Preset", exact=True)
    panel.until(lambda: "mine <b>" in preset.inner_text())
    preset.select_option("mine <b>")
    panel.until(lambda: book.value("panel.params") == "{'seed': 7}")
    panel.press("Forget this preset")
    panel.until(lambda: "mine" not in preset.inner_text())
    assert not panel.root.get_by_label("Forget this preset").is_visible()
    assert panel.root.locator(".llmk-problem").inner_text() == ""


def test_an_edited_answer_says_so_after_a_restart_too(book):
    panel = book.panel(f"panel = llmkernel.ChatPanel('slow', conversation={SAID})\npanel")
    panel.answers.last.hover()
    panel.press("Edit", inside=panel.answers.last)
    panel.answers.last.locator("textarea").fill("My own words")
    panel.press("Save")
    panel.until(lambda: "My own words" in panel.answers.last.inner_text())
    head = panel.answers.last.locator(".llmk-turn-head")
    assert "edited" in head.inner_text()
    book.restart()
    panel.until(lambda: "restarted" in panel.root.locator(".llmk-problem").inner_text())
    panel.press("Reconnect")
    panel.until(lambda: panel.root.locator(".llmk-problem").inner_text() == "")
    assert "edited" in head.inner_text()
    assert book.value(f"{REVIVED}._desk.current.path[-1].edited") == "True"
    book.run("import llmkernel")


def test_keys_typed_in_the_panel_are_not_the_notebooks(book):
    panel = book.panel()
    cells = f"() => {{ {MODEL}; return m.cells.length; }}"
    before = book.page.evaluate(cells)
    panel.box.click()
    book.page.keyboard.type("abdxy")
    panel.root.locator(".llmk-log").focus()
    book.page.keyboard.type("abx")
    book.page.keyboard.press("d")
    book.page.keyboard.press("d")
    assert panel.box.input_value() == "abdxy"
    assert book.page.evaluate(cells) == before


def test_a_worker_that_dies_is_told_and_comes_back(book, mortal):
    panel = book.panel("panel = llmkernel.ChatPanel('mortal', temperature=0)\npanel")
    panel.send("Tell me", wait=False)
    panel.until(lambda: len(panel.answers.last.locator(".llmk-body").inner_text()) > 40)
    panel.box.type("my next question")
    mortal.kill()
    panel.rest()
    assert panel.root.locator(".llmk-failed").count() == 1
    assert len(panel.answers.last.locator(".llmk-body").inner_text()) > 40
    panel.press("Reconnect")
    panel.until(lambda: panel.root.locator(".llmk-dot-ready").count())
    assert panel.box.input_value() == "my next question"
    panel.box.press("Enter")
    panel.until(lambda: panel.answers.count() == 2)
    panel.until(lambda: panel.answers.last.locator(".llmk-body").inner_text())
    panel.root.evaluate(CLICK_STOP)
    assert panel.root.locator(".llmk-problem").inner_text() == ""


def test_after_a_restart_of_the_kernel_the_panel_says_so_and_goes_on(book):
    panel = book.panel("panel = llmkernel.ChatPanel('slow', max_tokens=9, temperature=0)\npanel")
    panel.send("Before")
    panel.box.type("typed before")
    book.restart()
    panel.until(lambda: "restarted" in panel.root.locator(".llmk-problem").inner_text())
    assert "Before" in panel.questions.first.inner_text()
    panel.press("Reconnect")
    panel.until(lambda: panel.root.locator(".llmk-problem").inner_text() == "")
    assert panel.box.input_value() == "typed before"
    panel.box.press("Enter")
    panel.until(lambda: panel.answers.count() == 2)
    panel.rest()
    assert panel.questions.last.locator(".llmk-body").inner_text() == "typed before"
    book.run("import llmkernel")
    last = "__import__('llmkernel.notebook.panel.revival', fromlist=['x']).last()"
    assert book.value(f"len({last}.conversation)") == "4"


REVIVED = "__import__('llmkernel.notebook.panel.revival', fromlist=['x']).last()"


def test_after_each_reconnect_every_word_is_on_the_page_once(book):
    panel = book.panel("panel = llmkernel.ChatPanel('slow', max_tokens=60, temperature=0)\npanel")
    book.run("panel")
    panel.send("Before")
    for number in (1, 2):
        book.restart()
        panel.until(lambda: "restarted" in panel.root.locator(".llmk-problem").inner_text())
        reconnect = panel.root.get_by_role("button", name="Reconnect")
        reconnect.evaluate("(button) => { button.click(); button.click(); }")
        panel.until(lambda: panel.root.locator(".llmk-problem").inner_text() == "")
        panel.send(f"After restart {number}")
        held = book.value(f"{REVIVED}.conversation[-1]['content']")
        for view in (panel, book.view(1)):
            assert view.answers.count() == number + 1
            assert view.answers.last.locator(".llmk-body").inner_text().strip() == held, number
    book.run("import llmkernel")


def test_a_restart_loses_no_branch_and_no_conversation(book):
    panel = book.panel(
        "data = {'a': 1}\npanel = llmkernel.ChatPanel('slow', max_tokens=6, seed=1, typical_p=0.9)\npanel"
    )
    panel.press("Attach a variable or a file")
    panel.root.get_by_role("button", name="data").click()
    panel.until(lambda: panel.root.locator(".llmk-pending .llmk-chip").count())
    panel.send("First")
    panel.press("Regenerate")
    panel.until(lambda: panel.answers.last.locator(".llmk-place").count())
    panel.rest()
    panel.press("Branch before")
    panel.until(lambda: panel.answers.last.locator(".llmk-place").inner_text() == "1/2")
    first = panel.answers.last.locator(".llmk-body").inner_text()
    panel.press("New conversation")
    panel.until(lambda: panel.answers.count() == 0)
    panel.send("Second")
    book.restart()
    panel.until(lambda: "restarted" in panel.root.locator(".llmk-problem").inner_text())
    panel.press("Reconnect")
    panel.until(lambda: panel.root.locator(".llmk-problem").inner_text() == "")
    assert panel.questions.first.locator(".llmk-body").inner_text() == "Second"
    panel.root.locator(".llmk-pill").first.click()
    panel.root.get_by_role("button", name="Conversation 1").click()
    panel.until(lambda: panel.questions.first.locator(".llmk-body").inner_text() == "First")
    assert panel.answers.last.locator(".llmk-place").inner_text() == "1/2"
    assert panel.answers.last.locator(".llmk-body").inner_text() == first
    assert "data" in panel.questions.first.locator(".llmk-chip").inner_text()
    panel.press("Branch after")
    panel.until(lambda: panel.answers.last.locator(".llmk-place").inner_text() == "2/2")
    book.run("import llmkernel")
    last = "__import__('llmkernel.notebook.panel.revival', fromlist=['x']).last()"
    assert book.value(f"{last}.conversations") == "['Conversation 1', 'Conversation 2']"
    assert book.value(f"'```json' in {last}.conversation[0]['content']") == "True"
    assert book.value(f"{last}.params['typical_p']") == "0.9"


def test_no_attack_does_anything_wherever_it_is_cut(book):
    """Each payload is shown at every position of a cut: while it grows, and in the end."""
    positions = sum(len(payload) + 1 for payload in PAYLOADS)
    book.requests.clear()
    found = book.page.evaluate(SHOW, [BUNDLE.read_text(), PAYLOADS])
    print(f"{len(PAYLOADS)} payloads, {positions} positions")
    assert found == []
    assert [url for url in book.requests if "evil" in url] == []
    assert all("127.0.0.1" in url or url.startswith("blob:") for url in book.requests)


def test_the_attacks_are_attacks(book):
    """In a page that takes them as HTML they would do what they are for."""
    book.page.evaluate(
        "(payloads) => { const el = document.createElement('div'); document.body.append(el);"
        " for (const each of payloads) el.insertAdjacentHTML('beforeend', each); el.remove(); }",
        ['<img src=x onerror="window.attacked = 1">'],
    )
    book.page.wait_for_function("() => window.attacked === 1")


def test_axe_finds_nothing_in_light_and_dark_and_in_every_state(book, axe):
    panel = book.panel(f"panel = llmkernel.ChatPanel('slow', conversation={SAID})\npanel")
    book.page.evaluate(axe)
    for theme in ("JupyterLab Light", "JupyterLab Dark"):
        book.theme(theme)
        assert violations(book) == []
        panel.press("Controls")
        assert violations(book) == []
        panel.press("Close controls")
        for pill in (0, 1):
            panel.root.locator(".llmk-pill").nth(pill).click()
            assert violations(book) == []
            book.page.keyboard.press("Escape")
        panel.press("Attach a variable or a file")
        panel.until(lambda: panel.root.locator(".llmk-entry").count())
        assert violations(book) == []
        book.page.keyboard.press("Escape")
    book.theme("JupyterLab Light")
    panel.until(lambda: "llmk-dark" not in panel.root.get_attribute("class"))
    panel.root.evaluate("(root) => { root.style.setProperty('--dim', '#ddd'); }")
    # it looks; colours take a moment to change
    panel.until(lambda: [name for name, _ in violations(book)] == ["color-contrast"])


def violations(book):
    return book.page.evaluate(VIOLATIONS)


def test_it_follows_the_theme(book):
    panel = book.panel()
    colour = "(root) => getComputedStyle(root).backgroundColor"
    light = panel.root.evaluate(colour)
    book.theme("JupyterLab Dark")
    panel.until(lambda: "llmk-dark" in panel.root.get_attribute("class"))
    assert panel.root.evaluate(colour) != light
    book.theme("JupyterLab Light")
    panel.until(lambda: "llmk-dark" not in panel.root.get_attribute("class"))


def test_it_can_be_used_at_400_pixels(book):
    panel = book.panel("panel = llmkernel.ChatPanel('slow', max_tokens=60, temperature=0)\npanel")
    panel.root.evaluate("(root) => { root.parentElement.style.width = '400px'; }")
    panel.send("A long question " * 12)
    assert panel.root.evaluate("(root) => root.getBoundingClientRect().width") <= 400
    assert panel.root.evaluate(TOO_WIDE) == []
    panel.press("Controls")
    assert panel.root.evaluate(TOO_WIDE) == []
    panel.root.get_by_label("Seed").fill("3")
    panel.press("Close controls")
    panel.until(lambda: book.value("panel.params.get('seed')") == "3")


def test_at_400_pixels_no_figure_is_hidden(book):
    panel = book.panel(
        "panel = llmkernel.ChatPanel('slow', max_tokens=9)\npanel.attach([1], name='a' * 80)\npanel"
    )
    panel.root.evaluate("(root) => { root.parentElement.style.width = '400px'; }")
    panel.send("Hi")
    note = panel.questions.first.locator(".llmk-chip-note")
    panel.until(lambda: "tokens" in note.inner_text())
    assert note.is_visible()
    assert panel.root.locator(".llmk-worker-words").is_visible()
    assert "batch" in panel.root.locator(".llmk-worker-words").inner_text()
    assert panel.root.evaluate(TOO_WIDE) == []


IN_SIGHT = """(element) => element.scrollWidth <= element.clientWidth + 1 &&
  element.getBoundingClientRect().right <= element.closest('.llmk').getBoundingClientRect().right"""


def test_at_400_pixels_names_give_way_to_each_other_and_memory_is_there(book):
    panel = book.panel("panel = llmkernel.ChatPanel('slow')\npanel.name = 'long ' * 9\npanel")
    panel.root.evaluate("(root) => { root.parentElement.style.width = '400px'; }")
    assert panel.root.locator(".llmk-worker .llmk-name").first.evaluate(IN_SIGHT)
    figures = panel.root.locator(".llmk-figures")
    panel.until(lambda: "MB" in figures.inner_text())
    assert figures.evaluate(IN_SIGHT)
    assert panel.root.locator(".llmk-model").inner_text().startswith("scripted")
    panel.root.locator(".llmk-worker").click()
    model = panel.root.get_by_label("Model to start")
    words = model.evaluate(
        "(box) => { box.value = box.placeholder; return box.scrollWidth <= box.clientWidth; }"
    )
    assert words


def test_it_is_as_high_as_what_was_said_up_to_a_limit(book):
    panel = book.panel("panel = llmkernel.ChatPanel('slow', temperature=0)\npanel")
    height = lambda: panel.root.evaluate("(root) => root.offsetHeight")  # noqa: E731
    assert height() <= 300
    panel.send("A long story\n" * 12, wait=False)
    panel.until(lambda: height() > 360)
    panel.until(lambda: height() == 600)
    log = panel.root.locator(".llmk-log")
    left = "(log) => log.scrollHeight - log.scrollTop - log.clientHeight"
    panel.until(lambda: log.evaluate("(log) => log.scrollTop") > 100)
    assert log.evaluate(left) < 60, "it follows"
    assert panel.box.evaluate("(box) => box.getBoundingClientRect().bottom < innerHeight")
    panel.box.press("Escape")
    panel.rest()
    panel.root.evaluate("(root) => { root.style.height = '700px'; }")
    assert height() == 700


HARD = {
    "mathematics without end": "$" + "{" * 3000 + "$",
    "a line without a blank": "x" * 100_000,
    "quotations in quotations": ">" * 3000 + " a",
    "a table of thousands": "|a|b|\n|-|-|\n" + "|x|y|\n" * 2000,
    "tags": "<img src=x onerror=alert(1)>" * 1000,
}


def test_no_answer_is_too_much_for_the_page(book):
    for what, text in HARD.items():
        said = [
            {"role": "user", "content": "q"},
            {"role": "assistant", "content": text + " the end"},
        ]
        panel = book.panel(f"panel = llmkernel.ChatPanel('slow', conversation={said!r})\npanel")
        panel.until(lambda panel=panel: "the end" in panel.answers.first.inner_text())
        assert panel.root.evaluate(TOO_WIDE) == [], what


LOOKS = "(button) => getComputedStyle(button).backgroundColor"
LOOKS_AT_REST = """(button) => {
  const other = button.cloneNode(true);
  other.style.pointerEvents = 'none';
  button.after(other);
  const { backgroundColor } = getComputedStyle(other);
  other.remove();
  return backgroundColor;
}"""


def test_another_worker_is_started_from_the_panel_with_its_progress(book, mortal):
    mortal.stop()
    panel = book.panel()
    panel.root.locator(".llmk-worker").click()
    panel.root.get_by_label("Model to start").fill("scripted:load_ms=3000,step_ms=1")
    panel.press("Start")
    start = panel.root.get_by_role("button", name="Start", exact=True).first
    assert start.evaluate(LOOKS) == start.evaluate(LOOKS_AT_REST), "the mouse is over it"
    panel.until(lambda: panel.root.locator("progress").count())
    head = panel.root.locator(".llmk-worker").inner_text()
    assert head.startswith("slow"), "the one that answers until then"
    assert "next:" in head
    name = "scripted-load_ms-3000-step_ms-1"
    panel.until(lambda: name in panel.root.locator(".llmk-worker").inner_text())
    panel.until(lambda: panel.root.locator(".llmk-dot-ready").count())
    book.page.keyboard.press("Escape")
    panel.send("Hi")
    assert panel.root.locator(".llmk-problem").inner_text() == ""
    book.run(f"llmkernel.connect({name!r}).stop()")


def test_what_is_saved_is_readable_without_a_kernel_and_hidden_while_one_lives(book, lab_folder):
    panel = book.panel(
        f"panel = llmkernel.ChatPanel('slow', conversation={SAID}, max_tokens=8)\npanel"
    )
    panel.send("One more")
    static = book.page.locator(".llmk-static")
    panel.until(lambda: "One more" in (static.first.text_content() or ""))
    assert not static.first.is_visible()
    book.save()
    saved = nbformat.read(lab_folder[0] / "talk.ipynb", as_version=4)
    (html, _) = HTMLExporter(sanitize_html=True).from_notebook_node(saved)
    assert "One more" in html
    (markdown, _) = MarkdownExporter().from_notebook_node(saved)
    assert "One more" in markdown
    book.restart()
    book.open()
    static.first.wait_for(timeout=LONG_MS)
    assert "One more" in static.first.inner_text()
