/** A turn that is edited. What is typed stays until the kernel has it, or a person cancels. */
import { h } from './dom.js';

/** @typedef {import('./store.js').Turn} Turn */
/** @typedef {import('./turns.js').TurnView} TurnView */

export class Editor {
  /** @param {TurnView} owner @param {Turn} turn @param {string} text */
  constructor(owner, turn, text) {
    this.owner = owner;
    this.view = owner.view;
    this.role = turn.role;
    /** What the turn says. */
    this.before = turn.text;
    /** Whether the kernel was sent it, and has not said yet what came of it. */
    this.saving = false;
    this.box = h('textarea', { class: 'llmk-edit', 'aria-label': `Edit: ${turn.role}`, rows: 4 });
    this.box.value = text;
    this.box.addEventListener('keydown', (/** @type {KeyboardEvent} */ event) => this.#key(event));
    this.why = h('span', { class: 'llmk-dim', role: 'status' });
    const main = turn.role === 'user';
    const words = (/** @type {string} */ said, /** @type {() => void} */ click, kind = '') =>
      h('button', { type: 'button', class: `llmk-words ${kind}`, text: said, click });
    this.saves = [
      ...(main ? [words('Save and answer', () => this.#save(true), 'llmk-primary')] : []),
      words(main ? 'Save only' : 'Save', () => this.#save(false), main ? '' : 'llmk-primary'),
    ];
    this.element = h(
      'div', {}, this.box,
      h('div', { class: 'llmk-edit-actions' }, ...this.saves, words('Cancel', () => owner.closeEditor()), this.why),
    );
  }

  /** Whether it can be saved now, and why not. */
  draw() {
    if (!this.view.store.alive) this.saving = false; // nobody will say what came of it
    const why = this.#reason();
    for (const each of this.saves) each.disabled = why !== '';
    if (this.why.textContent !== why) this.why.textContent = why;
  }

  focus() {
    this.box.focus();
    this.element.lastElementChild?.scrollIntoView({ block: 'nearest' });
  }

  /** What the kernel says came of it. @param {Record<string, any>} message */
  told(message) {
    if (message.by !== this.view.id) return;
    this.saving = false;
    if (message.taken) this.owner.closeEditor();
    else this.draw();
  }

  #reason() {
    const { store } = this.view;
    if (!store.alive) return 'The kernel is away: Reconnect, and save then.';
    if (!store.turns.has(this.owner.id)) return 'This turn was deleted: copy what you typed, or cancel.';
    if (store.state.answering) return 'An answer is being written: stop it or wait, and save then.';
    return this.saving ? 'Saving …' : '';
  }

  /** @param {KeyboardEvent} event */
  #key(event) {
    if (event.key === 'Escape') {
      event.stopPropagation();
      this.owner.closeEditor();
    } else if (event.key === 'Enter' && (event.ctrlKey || event.metaKey)) this.#save(this.role === 'user');
  }

  /** @param {boolean} answer */
  #save(answer) {
    if (this.#reason()) return;
    const text = this.box.value;
    if (text === this.before && !answer) {
      this.owner.closeEditor();
      return;
    }
    this.saving = true;
    this.draw();
    this.view.send({ do: 'edit', turn: this.owner.id, text, answer, by: this.view.id });
  }
}
