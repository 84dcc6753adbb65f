/** The turns of a conversation on the page. */
import { button, h, icon, single } from './dom.js';
import { Editor } from './editor.js';
import { Growing } from './growing.js';

/** @typedef {import('./store.js').Turn} Turn */
/** @typedef {import('./view.js').View} View */

export class TurnView {
  /** @param {View} view @param {string} id */
  constructor(view, id) {
    this.view = view;
    this.id = id;
    /** @type {string} what is on the page, to see whether it has to change */
    this.drawn = '';
    this.body = h('div', { class: 'llmk-body' });
    this.head = h('div', { class: 'llmk-turn-head' });
    this.chips = h('div', { class: 'llmk-chips' });
    this.foot = h('div', { class: 'llmk-foot' });
    this.element = h('article', { class: 'llmk-turn' }, this.head, this.chips, this.body, this.foot);
    this.space = h('span', { class: 'llmk-space' });
    this.growing = new Growing(this.body, (part) => decorate(view, part));
    /** @type {Editor | null} while it is edited */
    this.editor = null;
  }

  /** @param {Turn} told */
  draw(told) {
    const { store } = this.view;
    const { alive } = store;
    const turn = alive ? told : store.left(told);
    this.body.classList.toggle('llmk-waiting', turn.state === 'running' && !turn.text);
    if (this.editor) this.editor.draw();
    else this.#drawBody(turn);
    const busy = Boolean(this.view.answering);
    const facts = turn.state === 'running' ? (store.state.live ?? {}) : (turn.facts ?? {});
    const words = turn.state === 'running' ? this.view.waitingWords(turn) : '';
    const drawn = JSON.stringify([{ ...turn, text: '' }, facts, words, busy, alive, Boolean(this.editor)]);
    if (drawn === this.drawn) return;
    this.drawn = drawn;
    this.element.className = `llmk-turn llmk-${turn.role} llmk-${turn.state}`;
    const who = speaker(turn);
    this.element.setAttribute('aria-label', turn.edited ? `${who}, edited` : who);
    const actions = this.#actions(turn, busy);
    const asked = turn.role === 'user';
    const edited = h('span', { class: 'llmk-dim', text: 'edited', title: 'A person has changed this answer' });
    this.head.replaceChildren(
      h('span', { class: 'llmk-who', text: who }),
      ...(turn.edited ? [edited] : []),
      this.#branches(turn),
      ...(asked ? [this.space, actions] : []),
    );
    this.chips.replaceChildren(...(turn.attachments ?? []).map((chip) => quoted(chip)));
    this.foot.replaceChildren(...(asked ? [] : [this.#facts(turn, facts, words), actions]));
  }

  /** @param {Turn} turn */
  #drawBody(turn) {
    if (turn.role === 'user') {
      if (this.body.textContent !== turn.text) this.body.textContent = turn.text;
    } else this.growing.set(turn.text, turn.state !== 'running');
  }

  /** @param {Turn} turn */
  #branches(turn) {
    if (turn.branches < 2) return document.createTextNode('');
    const step = (/** @type {number} */ by) => () =>
      this.view.send({ do: 'branch', turn: this.id, by });
    return h(
      'span',
      { class: 'llmk-branches', role: 'group', 'aria-label': 'Branches' },
      button('left', 'Branch before', step(-1), { disabled: turn.place === 1 }),
      h('span', { text: `${turn.place}/${turn.branches}`, class: 'llmk-place' }),
      button('right', 'Branch after', step(1), { disabled: turn.place === turn.branches }),
    );
  }

  /** @param {Turn} turn @param {Record<string, any>} facts @param {string} words while it is written */
  #facts(turn, facts, words) {
    const line = h('div', { class: 'llmk-facts' });
    if (turn.state === 'failed') {
      line.append(h('span', { class: 'llmk-warn', text: turn.problem || 'Broken off' }));
    } else if (turn.state === 'stopped') line.append(h('span', { text: 'stopped' }));
    else if (turn.state === 'running') line.append(h('span', { text: words }));
    else if (!turn.text.trim()) line.append(h('span', { text: 'no text' }));
    for (const [text, title] of figures(facts)) line.append(h('span', { text, title }));
    return line;
  }

  /** @param {Turn} turn @param {boolean} busy */
  #actions(turn, busy) {
    const { view, id } = this;
    const line = h('div', { class: 'llmk-actions' });
    const disabled = busy || !view.store.alive; // an editor may be opened without a kernel
    if (turn.state === 'running' || this.editor) return line;
    line.append(button('copy', 'Copy as Markdown', (event) => copy(event, view.textOf(id))));
    line.append(button('edit', 'Edit', () => this.edit(turn), { disabled: busy }));
    if (turn.role === 'assistant') {
      const again = () => view.send({ do: 'regenerate', turn: id });
      const on = () => view.send({ do: 'continue', turn: id });
      line.append(button('again', 'Regenerate', single(again), { disabled }));
      line.append(button('on', 'Continue this answer', single(on), { disabled }));
    } else if (view.isLast(id)) {
      const answer = () => view.send({ do: 'continue', turn: id });
      line.append(button('on', 'Answer this', single(answer), { disabled }));
    }
    const remove = () => view.remove({ do: 'delete', turn: id });
    line.append(button('bin', 'Delete with all that follows', single(remove), { disabled }));
    return line;
  }

  /** A turn that cannot be drawn is still there to be read. @param {Turn} turn */
  drawPlainly(turn) {
    this.drawn = '';
    if (!this.editor) this.body.replaceChildren(h('pre', { text: turn.text }));
  }

  /** @param {Turn} turn @param {string} [text] what was typed already */
  edit(turn, text = turn.text) {
    this.editor = new Editor(this, turn, text);
    this.body.replaceChildren(this.editor.element);
    this.draw(turn);
    this.editor.focus();
  }

  /** The turn is shown again, instead of what edits it. */
  closeEditor() {
    this.view.keepFocus(() => {
      this.editor = null;
      this.drawn = '';
      this.body.replaceChildren();
      this.growing = new Growing(this.body, (part) => decorate(this.view, part));
      const now = this.view.store.turns.get(this.id);
      if (now) this.draw(now);
      else this.element.remove();
    });
  }
}

/** @param {Turn} turn */
export function speaker(turn) {
  return turn.role === 'user' ? 'You' : 'Model';
}

/** @param {import('./store.js').Chip} chip */
export function quoted(chip) {
  const cost = typeof chip.tokens === 'number' ? counted(chip.tokens) : '';
  return h(
    'details',
    { class: 'llmk-chip' },
    h(
      'summary',
      {},
      icon('clip'),
      h('span', { class: 'llmk-chip-name', text: chip.name }),
      h('span', { class: 'llmk-chip-note', text: [chip.note, cost].filter(Boolean).join(' · ') }),
    ),
    h('pre', { text: chip.text, tabindex: 0, 'aria-label': `What ${chip.name} says` }),
  );
}

/** @param {number} tokens */
function counted(tokens) {
  return `${tokens.toLocaleString('en')} ${tokens === 1 ? 'token' : 'tokens'}`;
}

/** The figures of an answer. @param {Record<string, any>} facts @returns {[string, string][]} */
export function figures(facts) {
  const known = (/** @type {string} */ name) => Number.isFinite(facts[name]) && facts[name] >= 0;
  /** @type {[string, string][]} */
  const found = [];
  if (known('tokens') && facts.tokens) found.push([counted(facts.tokens), 'written']);
  if (known('rate') && facts.rate) found.push([`${facts.rate} tok/s`, 'while it was written']);
  if (known('first')) {
    const { first } = facts;
    const wait = first < 1 ? `${Math.round(first * 1000)} ms` : `${first.toFixed(1)} s`;
    found.push([`${wait} to first`, 'from question to first token']);
  }
  if (known('prompt') && facts.prompt) {
    const read = `${facts.prompt.toLocaleString('en')} read`;
    const cached = known('cached') && facts.cached ? `, ${facts.cached.toLocaleString('en')} cached` : '';
    found.push([read + cached, 'prompt tokens, and how many were known already']);
  }
  if (facts.reason === 'length') found.push(['cut at max tokens', 'Continue goes on']);
  return found;
}

/** Give blocks of code a bar with what can be done with them. */
function decorate(/** @type {View} */ view, /** @type {ParentNode} */ part) {
  for (const pre of part.querySelectorAll('pre')) {
    const code = pre.querySelector('code') ?? pre;
    const language = /language-([\w+#.-]+)/.exec(code.className)?.[1] ?? '';
    const text = () => (code.textContent ?? '').replace(/\n$/, '');
    const bar = h(
      'div',
      { class: 'llmk-code-bar' },
      h('span', { text: language || 'text' }),
      view.host.hasCells &&
        button('cell', 'Insert into a new cell', (event) => view.insert(event, text()), {
          words: 'Insert',
        }),
      button('copy', 'Copy code', (event) => copy(event, text()), { words: 'Copy' }),
    );
    const frame = h('div', { class: 'llmk-code' }, bar);
    pre.replaceWith(frame);
    pre.tabIndex = 0;
    frame.append(pre);
  }
  for (const table of part.querySelectorAll('table')) {
    const frame = h('div', { class: 'llmk-table', tabindex: 0, role: 'group', 'aria-label': 'Table' });
    table.replaceWith(frame);
    frame.append(table);
  }
}

/** Copy, and say so on the button. @param {Event} event @param {string} text */
export async function copy(event, text) {
  const pressed = /** @type {HTMLElement} */ (event.currentTarget);
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    copyByHand(text); // a page without https has no clipboard
  }
  confirm(pressed);
}

/** @param {string} text */
function copyByHand(text) {
  const box = h('textarea', { style: 'position:fixed;opacity:0' });
  box.value = text;
  document.body.append(box);
  box.select();
  document.execCommand('copy');
  box.remove();
}

/** A tick on a button, for a moment. @param {HTMLElement} pressed */
export function confirm(pressed) {
  const old = pressed.querySelector('svg');
  if (!old || pressed.classList.contains('llmk-did')) return;
  const tick = icon('check');
  pressed.classList.add('llmk-did');
  old.replaceWith(tick);
  setTimeout(() => {
    tick.replaceWith(old);
    pressed.classList.remove('llmk-did');
  }, 1200);
}
