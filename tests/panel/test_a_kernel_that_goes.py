"""A kernel that is shut down, or changed for another one, in a real JupyterLab."""

from __future__ import annotations

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]

SESSION = "window.jupyterapp.shell.currentWidget.sessionContext"
PANEL = "panel = llmkernel.ChatPanel('slow', temperature=0)\npanel"


@pytest.mark.parametrize(
    "leave",
    [
        f"{SESSION}.shutdown()",
        "window.jupyterapp.serviceManager.sessions.shutdown(" + SESSION + ".session.id)",
        SESSION + ".changeKernel({ name: 'python3' })",
    ],
    ids=["shut down", "shut down elsewhere", "changed"],
)
def test_a_kernel_that_goes_is_told_and_the_panel_goes_on_in_the_next(book, leave):
    book.run("import llmkernel")
    panel = book.panel(PANEL)
    panel.send("A long story", wait=False)
    panel.until(lambda: len(panel.answers.last.locator(".llmk-body").inner_text()) > 20)
    book.page.evaluate(f"() => {leave}")
    problem = panel.root.locator(".llmk-problem")
    panel.until(lambda: "restarted or has gone" in problem.inner_text())
    assert panel.root.locator(".llmk-running").count() == 0
    if "changeKernel" not in leave:
        panel.press("Reconnect")
        panel.until(lambda: "No kernel runs: start one" in problem.inner_text())
        book.page.evaluate(f"() => {SESSION}.changeKernel({{ name: 'python3' }})")
    book.page.evaluate(f"async () => {{ await {SESSION}.session.kernel.info; }}")
    panel.press("Reconnect")
    panel.until(lambda: problem.inner_text() == "")
    assert panel.root.locator(".llmk-stopped").count() == 1
    panel.send("And on", wait=False)
    panel.until(lambda: len(panel.answers.last.locator(".llmk-body").inner_text()) > 5)
    panel.box.press("Escape")
    panel.rest()
