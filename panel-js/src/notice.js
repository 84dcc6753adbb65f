/** What was deleted, with the way back. */
import { h } from './dom.js';

/** @typedef {import('./view.js').View} View */

/** How long it stays where nothing else changes. */
const STAYS_MS = 10_000;
/** How often it is seen whether somebody is still at it. */
const AGAIN_MS = 2000;

export class Notice {
  /** @param {View} view */
  constructor(view) {
    this.view = view;
    this.element = h('div', { class: 'llmk-notice', role: 'status' });
    this.drawn = '';
    /** Whether this view asked for the deletion: its button has gone, and with it the focus. */
    this.mine = false;
    /** @type {any} */
    this.timer = null;
  }

  draw() {
    const { state, alive } = this.view.store;
    const undo = alive ? state.undo : null;
    const id = undo?.id ?? '';
    if (id === this.drawn) return;
    this.drawn = id;
    this.close();
    if (!undo) return;
    const click = () => this.view.send({ do: 'undo', id });
    const back = h('button', { type: 'button', class: 'llmk-words', text: 'Undo', click });
    this.element.append(h('span', { text: undo.words }), back);
    if (this.mine) back.focus({ preventScroll: true });
    this.mine = false;
    this.timer = setTimeout(() => this.#fade(back), STAYS_MS);
  }

  close() {
    clearTimeout(this.timer);
    const focused = this.element.contains(this.element.getRootNode().activeElement);
    this.element.replaceChildren();
    if (focused) this.view.log.focus({ preventScroll: true });
  }

  /** It does not go from under a pointer or from under the keyboard. @param {HTMLElement} back */
  #fade(back) {
    if (this.element.matches(':hover') || back.matches(':focus-visible')) {
      this.timer = setTimeout(() => this.#fade(back), AGAIN_MS);
    } else this.close();
  }
}
