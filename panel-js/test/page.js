/** A view on a page of jsdom, with a kernel's side that only notes what it is sent. */
import { Store } from '../src/store.js';
import { View } from '../src/view.js';

/** @param {Record<string, any>} [state] @param {Record<string, any>} [turns] */
export function opened(state = {}, turns = {}) {
  window.matchMedia ??= () => ({ matches: false, addEventListener() {}, removeEventListener() {} });
  Element.prototype.scrollIntoView ??= () => {};
  localStorage.clear();
  const sent = [];
  const store = new Store((message) => sent.push(message));
  const conversations = [{ name: 'A', prefix: 'c1t', turns: 0 }, { name: 'B', prefix: 'c2t', turns: 0 }];
  const whole = { name: 'A', path: Object.keys(turns), draft: { text: '', by: '' }, conversations, ...state };
  store.receive({ n: 0, whole, turns });
  const host = { draftKey: () => 'key', hasCells: false };
  const view = new View(document.body, store, host);
  return {
    view,
    store,
    sent,
    /** @param {string} kind */
    told: (kind) => sent.filter((message) => message.do === kind),
    /** @param {Record<string, any>} set @param {Record<string, any>} [more] */
    say: (set, more = {}) => store.receive({ n: store.n + 1, set, ...more }),
    /** @param {string} selector */
    find: (selector) => view.root.querySelector(selector),
    /** @param {string} words */
    button: (words) =>
      [...view.root.querySelectorAll('button')].find(
        (one) => one.textContent === words || one.getAttribute('aria-label') === words,
      ),
  };
}

/** @param {any} field @param {string} text */
export function type(field, text) {
  field.value = text;
  field.dispatchEvent(new Event('input', { bubbles: true }));
}

/** @param {string} role @param {string} text @param {Record<string, any>} [more] */
export const turn = (role, text, more = {}) => ({
  role, text, state: 'done', place: 1, branches: 1, parent: null, shown: true, ...more,
});
