/** Where a question is typed, with what goes along. What is typed is never lost. */
import { button, h } from './dom.js';
import { keepFocus } from './focus.js';
import { change, merged } from './merging.js';
import { quoted } from './turns.js';

/** @typedef {import('./view.js').View} View */

/** After so long without a key the kernel is told what is typed, and while keys go on at least so often. */
const TELL_MS = 250;
const MOST_MS = 500;
/** After so long without an answer what the kernel was told is lost, as after its restart. */
const LOST_MS = 5000;

export class Composer {
  /** @param {View} view */
  constructor(view) {
    this.view = view;
    this.box = h('textarea', {
      class: 'llmk-box', rows: 1, placeholder: 'Ask …', 'aria-label': 'Your question',
      input: () => this.#typed(), keydown: (/** @type {KeyboardEvent} */ event) => this.#key(event),
    });
    this.start = h('textarea', {
      class: 'llmk-start', rows: 1, 'aria-label': 'Start the reply with',
      placeholder: 'Start the reply with …', hidden: true, input: () => this.#typed(),
      keydown: (/** @type {KeyboardEvent} */ event) => this.#key(event),
    });
    this.chips = h('div', { class: 'llmk-chips llmk-pending' });
    this.menu = h('div', { class: 'llmk-menu llmk-attach', hidden: true });
    this.attachButton = button('clip', 'Attach a variable or a file', () => this.#openMenu(), {
      'aria-expanded': 'false',
    });
    this.startButton = button('start', 'Start the reply with …', () => this.#toggleStart(), {
      'aria-expanded': 'false',
    });
    this.sendButton = button('send', 'Send', () => this.#press(), { class: 'llmk-button llmk-send' });
    this.fit = h('div', { class: 'llmk-fit', role: 'status' });
    this.element = h(
      'div', { class: 'llmk-composer' },
      this.chips, this.start, this.fit,
      h('div', { class: 'llmk-line' }, this.attachButton, this.startButton, this.box, this.sendButton),
      this.menu,
    );
    this.conversation = '';
    /** What the ids of its turns begin with: the same after it was renamed. @type {string | undefined} */
    this.mark = undefined;
    this.unsent = false;
    /** What is typed as the kernel has it: what it said last, or what it was told since. */
    this.known = '';
    /** How often it was told, and when last. */
    this.told = 0;
    this.toldAt = -Infinity;
    /** The same of the words that the reply starts with. */
    this.knownStart = '';
    /** When the first key was pressed that the kernel has not heard of. */
    this.since = 0;
    /** @type {string | null} the draft that was seen last */
    this.seen = null;
    /** @type {any} */
    this.timer = null;
    /** @type {string} */
    this.drawn = '';
    /** @type {string} */
    this.label = '';
  }

  draw() {
    const { state, alive } = this.view.store;
    this.#takeDraft(state);
    const pending = (state.pending ?? []).map((/** @type {any} */ chip) => this.#chip(chip));
    const drawn = JSON.stringify(state.pending ?? []);
    if (drawn !== this.drawn) keepFocus(this.chips, () => this.chips.replaceChildren(...pending), this.box);
    this.drawn = drawn;
    const busy = this.#busy;
    const stop = state.clicks_wait ? 'Stop (Esc), when the running cell has ended' : 'Stop (Esc)';
    const label = busy ? (this.view.stopping ? 'Stopping' : stop) : this.#sendLabel();
    if (label !== this.label) {
      const fresh = button(busy ? 'stop' : 'send', label, () => this.#press(), {
        class: `llmk-button llmk-send ${busy ? 'llmk-stop' : ''}`,
      });
      const focused = this.sendButton === this.sendButton.getRootNode().activeElement;
      this.sendButton.replaceWith(fresh);
      this.sendButton = fresh;
      if (focused) fresh.focus();
    }
    this.label = label;
    this.#drawFit(state);
    this.sendButton.disabled = !alive || (!busy && !this.#canSend());
  }

  /** What another view or Python made of the draft. @param {Record<string, any>} state */
  #takeDraft(state) {
    const text = state.draft?.text ?? '';
    const fresh = JSON.stringify([state.name, state.draft]);
    if (fresh === this.seen) return;
    const mark = marks(state).get(state.name);
    const moved = state.name !== this.conversation && (mark === undefined || mark !== this.mark);
    // what it was told before it said this will come; until then this view knows better
    if (!moved && this.#isBehind(state.draft?.heard)) return;
    if (moved) this.#leave(state);
    this.seen = fresh;
    this.conversation = state.name;
    this.mark = mark;
    const before = this.known;
    this.known = text;
    this.#takeStart(state.draft?.start ?? '', moved || (state.draft?.by !== this.#id && !this.unsent));
    if (moved) {
      this.toldAt = -Infinity;
      this.#show(text);
      write(this.key, text);
    } else this.#join(before, text, state.draft?.by === '');
  }

  /** Whether the kernel has not taken all that it was told; one that is new may never. @param {Record<string, number> | undefined} heard */
  #isBehind(heard) {
    return heard !== undefined && (heard[this.#id] ?? 0) < this.told && performance.now() < this.toldAt + LOST_MS;
  }

  /** @param {string} text how the reply is to start @param {boolean} shows */
  #takeStart(text, shows) {
    if (shows && (text !== this.knownStart || this.start.value !== text)) {
      if (text) this.#openStart(text);
      else this.#hideStart();
    }
    this.knownStart = text;
  }

  /**
   * Another view typed, or the question was sent: what was typed here meanwhile stays.
   * @param {string} before @param {string} text @param {boolean} kernel whether no view typed it
   */
  #join(before, text, kernel) {
    const mine = this.box.value;
    const apart = this.unsent || mine !== before;
    if (kernel && text === '' && apart) return;
    const both = apart && mine ? merged(before, mine, text) : text;
    if (both !== mine) this.#show(both);
    if (both !== text) this.#typed();
  }

  /** Another text in the box; the caret stays behind the words that it stood behind. @param {string} text */
  #show(text) {
    const { value, selectionEnd } = this.box;
    const { start, until } = change(value, text);
    const before = selectionEnd < value.length && (selectionEnd < until || selectionEnd === start);
    const caret = selectionEnd + (before ? 0 : text.length - value.length);
    this.box.value = text;
    this.box.setSelectionRange(caret, caret);
    this.#fitHeight();
  }

  /** What was typed belongs to the conversation it was typed in. @param {Record<string, any>} state */
  #leave(state) {
    if (!this.unsent) return;
    clearTimeout(this.timer);
    const known = marks(state);
    // it may have another name by now; one that is deleted takes nothing
    for (const [name, mark] of known) if (mark === this.mark && mark) this.conversation = name;
    if (known.has(this.conversation)) this.#tell();
    this.unsent = false;
  }

  get #id() {
    return this.view.id;
  }

  /** After the page or the cell came anew: what was typed here and has not arrived there. */
  restore() {
    this.key = this.view.host.draftKey(this.view.root);
    const kept = read(this.key);
    if (kept && !this.box.value) {
      this.box.value = kept;
      this.#typed();
    }
  }

  close() {
    if (this.unsent) this.#tell();
  }

  #typed() {
    const now = performance.now();
    if (!this.unsent) this.since = now;
    this.unsent = true;
    this.#fitHeight();
    write(this.key, this.box.value);
    clearTimeout(this.timer);
    const left = Math.max(0, this.since + MOST_MS - now);
    this.timer = setTimeout(() => this.#tell(), Math.min(TELL_MS, left));
    this.sendButton.disabled = !this.view.store.alive || (!this.#busy && !this.#canSend());
  }

  #tell() {
    clearTimeout(this.timer);
    this.unsent = false;
    const { box, start } = this;
    const base = this.known;
    this.known = box.value;
    this.told += 1;
    this.toldAt = performance.now();
    const from = { by: this.#id, name: this.conversation, n: this.told };
    this.view.send({ do: 'draft', text: box.value, base, start: start.value, ...from });
  }

  get #busy() {
    return Boolean(this.view.answering);
  }

  #canSend() {
    const { pending } = this.view.store.state;
    return !this.tooLong && !this.view.noWorker && (this.box.value.trim() !== '' || (pending ?? []).length > 0);
  }

  #sendLabel() {
    return this.view.noWorker ? `Nothing can be sent: ${this.view.noWorker}` : 'Send (Enter)';
  }

  /** @param {Record<string, any>} state */
  #drawFit(state) {
    const { used, limit } = state.context ?? {};
    this.tooLong = Boolean(limit) && used > limit;
    const number = (/** @type {number} */ count) => count.toLocaleString('en');
    const { elsewhere } = this.view;
    const busy = elsewhere && `“${elsewhere}” is being answered. Stop it, or wait, to ask here.`;
    const words = this.tooLong
      ? `Too long to send: ${number(used)} tokens, and ${number(limit)} fit. ` +
        'Shorten it, take something off, or begin a new conversation.'
      : busy;
    this.fit.classList.toggle('llmk-dim', !this.tooLong);
    if (this.fit.textContent !== words) this.fit.textContent = words;
  }

  /** @param {KeyboardEvent} event */
  #key(event) {
    if (event.key !== 'Enter' || event.shiftKey || event.isComposing) return;
    event.preventDefault();
    if (!this.#busy) this.#press();
  }

  #press() {
    const { view } = this;
    if (this.#busy) {
      view.stop();
      return;
    }
    if (!view.store.alive || !this.#canSend()) return;
    clearTimeout(this.timer);
    view.send({ do: 'send', text: this.box.value, start: this.start.hidden ? '' : this.start.value });
    this.box.value = this.known = this.knownStart = '';
    this.#hideStart();
    this.unsent = false;
    write(this.key, '');
    this.#fitHeight();
    this.box.focus();
  }

  #fitHeight() {
    grow(this.box);
    if (!this.start.hidden) grow(this.start);
  }

  #toggleStart() {
    if (!this.start.hidden) {
      this.#hideStart();
      this.#typed();
      return;
    }
    this.#openStart('');
    this.start.focus();
  }

  /** @param {string} text */
  #openStart(text) {
    this.start.value = text;
    this.start.hidden = false;
    this.startButton.setAttribute('aria-expanded', 'true');
    grow(this.start);
  }

  #hideStart() {
    this.start.value = '';
    this.start.hidden = true;
    this.startButton.setAttribute('aria-expanded', 'false');
  }

  /** @param {import('./store.js').Chip} chip */
  #chip(chip) {
    const off = () => this.view.send({ do: 'detach', name: chip.name });
    return h(
      'div', { class: 'llmk-chip-frame' }, quoted(chip),
      button('close', `Take ${chip.name} off`, off),
    );
  }

  // the menu ----------------------------------------------------------------------

  #openMenu() {
    if (this.closeMenu()) return;
    this.menu.hidden = false;
    this.attachButton.setAttribute('aria-expanded', 'true');
    this.field = h('input', {
      type: 'text', class: 'llmk-field', 'aria-label': 'Name of a variable or path of a file',
      placeholder: 'variable or path/to/file', input: () => this.#filter(),
      keydown: (/** @type {KeyboardEvent} */ event) => {
        if (event.key !== 'Enter' || !this.field.value.trim()) return;
        event.preventDefault(); // or it would be a new line in the box that gets the focus
        this.#attach(this.field.value);
      },
    });
    this.list = h('div', { class: 'llmk-names', role: 'group', 'aria-label': 'Variables' });
    const chosen = h('input', {
      type: 'file', hidden: true, 'aria-label': 'A file of this computer',
      change: () => this.#upload(chosen.files?.[0]),
    });
    const pick = () => chosen.click();
    this.menu.replaceChildren(
      this.field, this.list, chosen,
      h('button', { type: 'button', class: 'llmk-words', text: 'A file of this computer …', click: pick }),
    );
    this.offer([]);
    this.view.send({ do: 'names' });
    this.field.focus();
  }

  /** @returns {boolean} whether it was open */
  closeMenu() {
    if (this.menu.hidden) return false;
    this.menu.hidden = true;
    this.menu.replaceChildren();
    this.attachButton.setAttribute('aria-expanded', 'false');
    this.attachButton.focus();
    return true;
  }

  /** @param {{name: string, kind: string}[]} names */
  offer(names) {
    if (this.menu.hidden) return;
    const entries = names.map(({ name, kind }) =>
      h(
        'button', { type: 'button', class: 'llmk-entry', 'data-name': name, click: () => this.#attach(name) },
        h('span', { text: name }), h('span', { class: 'llmk-dim', text: kind }),
      ),
    );
    this.list.replaceChildren(...entries);
    this.#filter();
  }

  #filter() {
    const wanted = this.field.value.trim().toLowerCase();
    for (const entry of this.list.children) {
      entry.hidden = !entry.dataset.name.toLowerCase().includes(wanted);
    }
  }

  /** @param {string} name */
  #attach(name) {
    this.view.send({ do: 'attach', name });
    this.closeMenu();
    this.box.focus();
  }

  /** @param {File | undefined} file */
  async #upload(file) {
    if (!file) return;
    this.view.send({ do: 'attach', name: file.name, text: await file.text() });
    this.closeMenu();
  }
}

/** As high as what is in it, up to a limit. @param {HTMLTextAreaElement} box */
function grow(box) {
  box.style.height = 'auto';
  box.style.height = `${Math.min(box.scrollHeight + 2, 200)}px`;
}

/** The conversations by name. @param {Record<string, any>} state @returns {Map<string, string>} */
function marks(state) {
  return new Map((state.conversations ?? []).map((/** @type {any} */ one) => [one.name, one.prefix]));
}

/** @param {string | undefined} key */
function read(key) {
  try {
    return key ? (localStorage.getItem(key) ?? '') : '';
  } catch {
    return ''; // a page may have no storage
  }
}

/** @param {string | undefined} key @param {string} text */
function write(key, text) {
  try {
    if (key && text) localStorage.setItem(key, text);
    else if (key) localStorage.removeItem(key);
  } catch {
    // nothing is kept in this browser; the kernel has it a moment later
  }
}
