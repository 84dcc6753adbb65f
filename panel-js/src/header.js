/** The conversations and the worker of a panel. */
import { button, h, icon } from './dom.js';
import { copy, speaker } from './turns.js';

/** @typedef {import('./view.js').View} View */

export class Header {
  /** @param {View} view */
  constructor(view) {
    this.view = view;
    this.name = h('span', { class: 'llmk-name' });
    this.chats = h(
      'button', {
        type: 'button', class: 'llmk-pill', 'aria-expanded': 'false', 'aria-haspopup': 'true',
        title: 'Conversations', click: () => this.#toggle(this.chats, () => this.#chatMenu()),
      },
      icon('chat'), this.name, icon('down'),
    );
    this.workerName = h('span', { class: 'llmk-name' });
    this.next = h('span', { class: 'llmk-name llmk-next' });
    this.dot = h('span', { class: 'llmk-dot', 'aria-hidden': 'true' });
    this.workers = h(
      'button', {
        type: 'button', class: 'llmk-pill llmk-worker', 'aria-expanded': 'false', 'aria-haspopup': 'true',
        title: 'Worker', click: () => this.#toggle(this.workers, () => this.#workerMenu()),
      },
      this.dot, this.workerName, this.next, icon('down'),
    );
    const controls = button('sliders', 'Controls', () => view.drawer.toggle(), { 'aria-expanded': 'false' });
    this.controls = controls;
    this.menu = h('div', { class: 'llmk-menu llmk-header-menu', hidden: true });
    this.element = h(
      'header', { class: 'llmk-header' },
      this.chats, button('plus', 'New conversation', () => view.send({ do: 'new' })),
      h('span', { class: 'llmk-space' }), this.workers, controls, this.menu,
    );
    /** @type {HTMLElement | null} */
    this.opener = null;
    /** @type {string} */
    this.drawn = '';
  }

  draw() {
    const { alive, state } = this.view.store;
    this.name.textContent = state.name ?? '';
    const worker = state.worker ?? {};
    const loads = Boolean(state.loading && !state.loading.failed);
    const starting = loads ? `${state.loading.title} …` : '';
    // the one that runs keeps its place in the head until another one has taken it
    const asked = worker.state && worker.state !== 'none' ? worker.name : null;
    this.workerName.textContent = asked ?? (starting || (worker.name ?? 'no worker'));
    this.next.textContent = asked && starting ? `next: ${starting}` : '';
    this.next.title = asked && starting ? `${state.loading.model}: ${starting}` : '';
    this.workers.title = `Worker: ${this.workerName.textContent}`;
    this.chats.title = `Conversation: ${state.name ?? ''}`;
    const seen = alive ? (worker.state ?? 'none') : 'unknown';
    this.dot.className = `llmk-dot llmk-dot-${alive && loads ? 'loading' : seen}`;
    const told = [this.workerName.textContent, seen, this.next.textContent];
    this.workers.setAttribute('aria-label', `Worker: ${told.filter(Boolean).join(', ')}`);
    this.chats.setAttribute('aria-label', `Conversation: ${state.name ?? ''}`);
    const drawn = JSON.stringify([state.conversations, state.workers, state.loading, state.name, worker.name]);
    if (drawn !== this.drawn && !this.menu.hidden && !this.menu.contains(document.activeElement)) {
      this.refill?.();
    } else if (drawn !== this.drawn && !this.menu.hidden) this.#refreshLoading();
    this.drawn = drawn;
  }

  chooseWorker() {
    if (this.opener === this.workers && !this.menu.hidden) return;
    this.#toggle(this.workers, () => this.#workerMenu());
  }

  /** @returns {boolean} whether one was open */
  closeMenus() {
    if (this.menu.hidden) return false;
    this.menu.hidden = true;
    this.menu.replaceChildren();
    this.opener?.setAttribute('aria-expanded', 'false');
    this.opener?.focus();
    return true;
  }

  /** @param {HTMLElement} opener @param {() => void} fill */
  #toggle(opener, fill) {
    const same = this.opener === opener && !this.menu.hidden;
    this.closeMenus();
    if (same) return;
    this.opener = opener;
    this.refill = fill;
    this.menu.hidden = false;
    this.menu.classList.toggle('llmk-right', opener === this.workers);
    opener.setAttribute('aria-expanded', 'true');
    fill();
    this.menu.querySelector('button, input')?.focus();
  }

  #chatMenu() {
    const { state } = this.view.store;
    const send = (/** @type {Record<string, any>} */ message) => () => {
      this.closeMenus();
      this.view.send(message);
    };
    const entries = (state.conversations ?? []).map((/** @type {any} */ one) =>
      h(
        'button', {
          type: 'button', class: 'llmk-entry', 'aria-current': one.name === state.name && 'true',
          click: send({ do: 'select', name: one.name }),
        },
        h('span', { text: one.name }), h('span', { class: 'llmk-dim', text: `${one.turns} ${one.turns === 1 ? 'turn' : 'turns'}` }),
      ),
    );
    const name = h('input', { class: 'llmk-field', 'aria-label': 'Name of this conversation', type: 'text' });
    name.value = state.name ?? '';
    const rename = () => send({ do: 'rename', name: name.value })();
    name.addEventListener('keydown', (/** @type {KeyboardEvent} */ event) => {
      if (event.key !== 'Enter') return;
      event.preventDefault(); // or it would press the button that gets the focus
      rename();
    });
    const words = (/** @type {string} */ text, /** @type {(event: Event) => void} */ click, kind = '') =>
      h('button', { type: 'button', class: `llmk-entry ${kind}`, text, click });
    const file = h('input', {
      type: 'file', accept: '.json,.md', hidden: true, 'aria-label': 'A saved conversation',
      change: () => this.#import(file.files?.[0]),
    });
    const forget = () => {
      this.closeMenus();
      this.view.remove({ do: 'forget' });
    };
    const out = (/** @type {string} */ kind) => () => this.view.send({ do: 'export', kind, to: this.view.id });
    this.menu.replaceChildren(
      h('div', { class: 'llmk-menu-title', text: 'Conversations' }), ...entries,
      h('div', { class: 'llmk-menu-title', text: 'This one' }),
      h('div', { class: 'llmk-row' }, name, h('button', { type: 'button', class: 'llmk-words', text: 'Rename', click: rename })),
      words('Copy as Markdown', (event) => copy(event, this.#markdown())),
      words('Export as JSON', out('json')), words('Export as Markdown', out('md')),
      words('Import …', () => file.click()),
      words('Delete this conversation', forget, 'llmk-danger'), file,
    );
  }

  #markdown() {
    const { state, turns } = this.view.store;
    return (state.path ?? [])
      .map((/** @type {string} */ id) => turns.get(id))
      .map((/** @type {any} */ turn) => `## ${speaker(turn)}${turn.edited ? ' (edited)' : ''}\n\n${turn.text}`)
      .join('\n\n');
  }

  #workerMenu() {
    const { state } = this.view.store;
    const entries = (state.workers ?? []).map((/** @type {any} */ one) =>
      h(
        'button', {
          type: 'button', class: 'llmk-entry', 'aria-current': one.name === state.worker?.name && 'true',
          click: () => {
            this.closeMenus();
            this.view.send({ do: 'worker', name: one.name });
          },
        },
        h('span', { text: one.name }), h('span', { class: 'llmk-dim', text: one.model }),
      ),
    );
    const model = h('input', {
      class: 'llmk-field', type: 'text', placeholder: 'Hub id or folder',
      'aria-label': 'Model to start',
    });
    const start = () => this.view.send({ do: 'start', model: model.value });
    model.addEventListener('keydown', (/** @type {KeyboardEvent} */ event) => {
      if (event.key === 'Enter') start();
    });
    this.loading = h('div', { class: 'llmk-loading' });
    this.menu.replaceChildren(
      h('div', { class: 'llmk-menu-title', text: 'Running workers' }),
      ...(entries.length ? entries : [h('div', { class: 'llmk-dim llmk-pad', text: 'None runs.' })]),
      h('div', { class: 'llmk-menu-title', text: 'Start another' }),
      h('div', { class: 'llmk-row' }, model, h('button', { type: 'button', class: 'llmk-words llmk-primary', text: 'Start', click: start })),
      h('div', { class: 'llmk-dim llmk-pad', text: 'Empty: the embedded model.' }),
      this.loading,
    );
    this.#refreshLoading();
  }

  #refreshLoading() {
    const { loading } = this.view.store.state;
    if (!this.loading) return;
    this.loading.replaceChildren();
    if (!loading) return;
    if (loading.failed) {
      this.loading.append(h('span', { class: 'llmk-warn', text: loading.failed }));
      return;
    }
    const bar = h('progress', { 'aria-label': 'Loading' });
    if (typeof loading.share === 'number') bar.value = loading.share;
    const cancel = () => this.view.send({ do: 'cancel_start' });
    this.loading.append(
      h('span', { text: `${loading.model}: ${loading.title}` }), bar,
      h('button', { type: 'button', class: 'llmk-words', text: 'Cancel', click: cancel }),
    );
  }

  /** @param {File | undefined} file */
  async #import(file) {
    if (file) this.view.send({ do: 'import', text: await file.text() });
    this.closeMenus();
  }

  /** Hand over a file that the kernel has written. @param {Record<string, any>} message */
  hand(message) {
    const kind = message.kind === 'md' ? 'text/markdown' : 'application/json';
    const url = URL.createObjectURL(new Blob([message.text], { type: kind }));
    const link = h('a', { href: url, download: message.file });
    document.body.append(link);
    link.click();
    link.remove();
    setTimeout(() => URL.revokeObjectURL(url), 10_000);
  }
}
