"""Markdown of a model in a real JupyterLab, as a trusted output: the page it makes is harmless.

Needs playwright and a Chromium, which are no dependencies of the project.
"""

from __future__ import annotations

import random
import shutil
from pathlib import Path

import pytest

from llmkernel.notebook.markdown import safe
from tests.notebook.test_markdown import ATTACKS, PIECES

pytest.importorskip("playwright")
CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(240),
    pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium here"),
]

RENDER = """async (texts) => {
  const tags = new Set(`p em strong code pre a span ul ol li blockquote h1 h2 h3 h4 h5 h6 hr br
    table thead tbody tr th td del input small`.split(/\\s+/));
  const names = new Set(`href class id align start target rel type disabled checked
    data-jupyter-id`.split(/\\s+/));
  const plugins = [...window.jupyterapp.pluginRegistry._plugins.values()];
  const rendermime = plugins.find(
    plugin => plugin.provides?.name?.endsWith('IRenderMimeRegistry')).service;
  const found = [];
  for (const text of texts) {
    const model = rendermime.createModel({ data: { 'text/markdown': text }, trusted: true });
    const renderer = rendermime.createRenderer('text/markdown');
    document.body.appendChild(renderer.node);
    await renderer.renderModel(model);
    const dangers = [];
    for (const element of renderer.node.querySelectorAll('*')) {
      const tag = element.tagName.toLowerCase();
      if (element.closest('mjx-container')) continue;
      if (!tags.has(tag)) dangers.push(tag);
      for (const { name, value } of element.attributes) {
        if (!names.has(name)) dangers.push(`${tag} ${name}=${value}`);
        if (name === 'href' && !/^(https?:|mailto:|#)/.test(value)) dangers.push(value);
      }
    }
    renderer.node.remove();
    found.push(dangers);
  }
  return found;
}"""


@pytest.fixture(scope="module")
def render(tmp_path_factory):
    """Renders texts as JupyterLab does; gives the dangers in each."""
    from tools.screenshot import browser_page, jupyter_lab

    folder = Path(tmp_path_factory.mktemp("lab"))
    with jupyter_lab(folder) as url, browser_page(CHROMIUM, 900, 700) as page:
        dialogs = []
        page.on("dialog", lambda dialog: (dialogs.append(dialog.message), dialog.dismiss()))
        page.goto(url.format(path="/lab"))
        page.wait_for_function("() => window.jupyterapp", timeout=60_000)
        page.evaluate("() => window.jupyterapp.restored")
        yield lambda texts: page.evaluate(RENDER, texts)
        assert dialogs == [], "a script ran"


def test_the_attacks_are_attacks_there(render):
    assert sum(bool(dangers) for dangers in render(["<img src=x>", "[x](javascript:x)"])) == 2


def test_no_attack_survives(render):
    assert render([safe(attack) for attack in ATTACKS]) == [[]] * len(ATTACKS)


def test_no_mixture_of_markdown_survives(render):
    chance = random.Random(20)
    texts = ["".join(chance.choices(PIECES, k=chance.randint(1, 30))) for _ in range(1500)]
    found = render([safe(text) for text in texts])
    assert [pair for pair in zip(texts, found, strict=True) if pair[1]] == []
