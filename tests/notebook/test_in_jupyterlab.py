"""Markdown of a model in a real JupyterLab, as a trusted output: the page it makes is harmless."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from llmkernel.notebook.arguments import FORMATS
from llmkernel.notebook.markdown import safe
from llmkernel.notebook.rendering import answers
from llmkernel.notebook.tables import HTML
from llmkernel.protocol import TokenLogprob, TopToken
from tests.browsers import CHROMIUM, need_a_browser
from tests.notebook.test_markdown import ATTACKS, PIECES

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]

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
def page(tmp_path_factory):
    """A JupyterLab in a browser; a dialogue in it fails the module."""
    need_a_browser()
    from tools.screenshot import browser_page, jupyter_lab

    folder = Path(tmp_path_factory.mktemp("lab"))
    with jupyter_lab(folder) as url, browser_page(CHROMIUM, 900, 700) as page:
        dialogs = []
        page.on("dialog", lambda dialog: (dialogs.append(dialog.message), dialog.dismiss()))
        page.goto(url.format(path="/lab"))
        page.wait_for_function("() => window.jupyterapp", timeout=60_000)
        page.evaluate("() => window.jupyterapp.restored")
        yield page
        assert dialogs == [], "a script ran"


@pytest.fixture
def render(page):
    """Renders texts as JupyterLab does; gives the dangers in each."""
    return lambda texts: page.evaluate(RENDER, texts)


def test_the_attacks_are_attacks_there(render):
    assert sum(bool(dangers) for dangers in render(["<img src=x>", "[x](javascript:x)"])) == 2


def test_no_attack_survives(render):
    assert render([safe(attack) for attack in ATTACKS]) == [[]] * len(ATTACKS)


def test_no_mixture_of_markdown_survives(render):
    chance = random.Random(20)
    texts = ["".join(chance.choices(PIECES, k=chance.randint(1, 30))) for _ in range(1500)]
    found = render([safe(text) for text in texts])
    assert [pair for pair in zip(texts, found, strict=True) if pair[1]] == []


# our own HTML ----------------------------------------------------------------------------------

LOOK = """async ([texts, trusted]) => {
  const plugins = [...window.jupyterapp.pluginRegistry._plugins.values()];
  const rendermime = plugins.find(
    plugin => plugin.provides?.name?.endsWith('IRenderMimeRegistry')).service;
  window.shown?.remove();
  window.shown = document.body.appendChild(document.createElement('div'));
  for (const text of texts) {
    const model = rendermime.createModel({ data: { 'text/html': text }, trusted });
    const renderer = rendermime.createRenderer('text/html');
    window.shown.appendChild(renderer.node);
    await renderer.renderModel(model);
  }
  return window.shown.innerHTML;
}"""

DANGERS = """() => [...window.shown.querySelectorAll('*')].flatMap(element => [
  ...(/^(SCRIPT|IFRAME|IMG|OBJECT|EMBED|FORM|BUTTON|SVG)$/.test(element.tagName)
    ? [element.outerHTML] : []),
  ...[...element.attributes].filter(({name, value}) =>
    name.startsWith('on') || (name === 'href' && !/^(https?:|mailto:|#)/.test(value)),
  ).map(({name, value}) => `${name}=${value}`)])"""


def heat(*texts):
    tokens = [
        TokenLogprob(
            token_id=1,
            text=text,
            logprob=-0.2 - 1.5 * number,
            top=[TopToken(token_id=2, text="other", logprob=-1.0)],
        )
        for number, text in enumerate(texts)
    ]
    return answers(["".join(texts)], "markdown", [tokens])[HTML]


def test_in_a_notebook_of_somebody_else_colours_titles_and_the_table_stay(page):
    html = page.evaluate(
        LOOK, [[heat("one", " two", " three"), answers(["a", "b"], "text")[HTML]], False]
    )
    assert "<style" not in html  # as it was measured; what follows does without
    labels = page.locator(".llmk-heat label")
    assert labels.count() == 3
    assert '"other" 36.8%' in labels.nth(1).get_attribute("title")
    colours = [labels.nth(n).evaluate("e => getComputedStyle(e).backgroundColor") for n in range(3)]
    assert len(set(colours)) == 3
    assert not page.locator("details td").first.is_visible()
    page.locator(".llmk-heat ~ details summary").focus()
    page.keyboard.press("Enter")
    assert page.locator("details td").first.is_visible()
    columns = "e => getComputedStyle(e.parentElement.parentElement).display"
    assert page.locator("pre.tex2jax_ignore").first.evaluate(columns) == "grid"


def test_the_arrow_keys_go_from_token_to_token_and_show_what_else_was_likely(page):
    page.evaluate(LOOK, [[heat("one", " two", " three")], True])
    more = page.locator(".llmk-heat label > i")
    page.locator(".llmk-heat input").first.focus()
    page.keyboard.press("ArrowRight")
    assert [more.nth(n).is_visible() for n in range(3)] == [False, True, False]
    page.keyboard.press("Tab")  # one stop for all tokens
    assert page.evaluate("() => document.activeElement.tagName") == "SUMMARY"
    page.locator(".llmk-heat label").nth(2).hover()
    assert [more.nth(n).is_visible() for n in range(3)] == [False, False, True]


def test_no_attack_survives_in_columns_and_colours(page):
    texts = [answers([attack, attack], form)[HTML] for attack in ATTACKS for form in FORMATS]
    texts += [heat(attack, attack) for attack in ATTACKS]
    for trusted in (True, False):
        page.evaluate(LOOK, [texts, trusted])
        page.wait_for_timeout(300)
        assert page.evaluate(DANGERS) == []
