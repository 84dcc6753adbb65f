/** One view of a panel: header, conversation, composer, status, controls. */
import css from './panel.css';
import { Composer } from './composer.js';
import { button, h } from './dom.js';
import { Drawer } from './drawer.js';
import { keepFocus } from './focus.js';
import { Header } from './header.js';
import { followTheme, hideTranscript } from './host.js';
import { reconnect } from './link.js';
import { Notice } from './notice.js';
import { followSize } from './sizing.js';
import { Status } from './status.js';
import { confirm, copy, TurnView } from './turns.js';

/** @typedef {import('./store.js').Store} Store */
/** @typedef {import('./store.js').Change} Change */
/** @typedef {import('./host.js').Host} Host */

const SUGGESTIONS = 'Ask something. Attach a variable or a file to talk about your data.';
/** How often the worker is asked after because somebody is here. */
const LOOK_MS = 20_000;
/** What is read out where an answer has ended. @type {Record<string, string>} */
const ENDS = {
  done: 'The answer is complete.', stopped: 'The answer was stopped.', failed: 'The answer broke off.',
};
let numbers = 0;

/** @param {HTMLElement} el @param {Store} store @param {Host} host */
export function mount(el, store, host) {
  const view = new View(el, store, host);
  return () => view.close();
}

export class View {
  /** @param {HTMLElement} el @param {Store} store @param {Host} host */
  constructor(el, store, host) {
    this.store = store;
    this.host = host;
    this.prefix = `llmk-${(numbers += 1)}`;
    /** @type {string} */
    this.problemDrawn = '';
    /** @type {string | null} */
    this.failure = null;
    /** @type {Map<string, TurnView>} */
    this.turns = new Map();
    this.looked = 0;
    this.header = new Header(this);
    this.drawer = new Drawer(this);
    this.composer = new Composer(this);
    this.status = new Status(this);
    this.notice = new Notice(this);
    this.problem = h('div', { class: 'llmk-problem', role: 'alert' });
    this.log = h('div', {
      class: 'llmk-log', role: 'log', tabindex: 0, 'aria-label': 'Conversation', 'aria-live': 'polite',
    });
    this.news = h('div', { class: 'llmk-hidden', role: 'status' });
    this.empty = h('p', { class: 'llmk-empty', text: SUGGESTIONS });
    this.toEnd = button('down', 'To the end', () => this.scrollToEnd(), { class: 'llmk-to-end' });
    this.root = this.#frame();
    el.append(this.root);
    this.following = true;
    this.log.addEventListener('scroll', () => this.#scrolled());
    this.undo = [store.listen((change) => this.#take(change)), followTheme(this.root)];
    const toEnd = () => this.following && this.scrollToEnd();
    if (typeof ResizeObserver === 'function') this.undo.push(followSize(this.root, toEnd));
    requestAnimationFrame(() => {
      this.undo.push(hideTranscript(el));
      this.composer.restore();
    });
    this.#draw(new Set(['turns']), true);
  }

  #frame() {
    const middle = h(
      'div', { class: 'llmk-middle' },
      h('div', { class: 'llmk-log-frame' }, this.log, this.toEnd), this.drawer.element,
    );
    const root = h(
      'section',
      { class: 'llmk', 'aria-label': 'Chat panel', 'data-lm-suppress-shortcuts': 'true' },
      h('style', { text: css }), this.header.element, middle, this.problem, this.notice.element,
      this.composer.element, this.status.element, this.news,
    );
    for (const event of ['pointerenter', 'focusin']) root.addEventListener(event, () => this.#look());
    root.addEventListener('keydown', (/** @type {KeyboardEvent} */ event) => this.#key(event));
    return root;
  }

  close() {
    this.composer.close();
    this.notice.close();
    this.root.remove();
    for (const action of this.undo) action();
  }

  /** @param {Record<string, any>} message */
  send(message) {
    if (this.store.alive) this.store.send(message);
  }

  /** Delete something, which can be undone. @param {Record<string, any>} message */
  remove(message) {
    this.notice.mine = true;
    this.send(message);
  }

  /** Why nobody can be asked, or nothing; a worker that is starting will be asked. */
  get noWorker() {
    const { worker, loading } = this.store.state;
    return loading && !loading.failed ? '' : (worker?.why ?? '');
  }

  /** The turn that is being written, or nothing; without a kernel nobody writes. */
  get answering() {
    return this.store.alive ? this.store.state.answering : null;
  }

  /** The conversation that is being answered, where another one is shown. */
  get elsewhere() {
    const { answering } = this;
    const { path, conversations } = this.store.state;
    if (!answering || (path ?? []).includes(answering)) return '';
    return (conversations ?? []).find((/** @type {any} */ one) => answering.startsWith(one.prefix))?.name ?? '';
  }

  /** What this view is called in all pages. */
  get id() {
    return this.store.id + this.prefix;
  }

  /** @param {string} id */
  textOf(id) {
    return this.store.turns.get(id)?.text ?? '';
  }

  /** @param {string} id */
  isLast(id) {
    return this.store.state.path?.at(-1) === id;
  }

  /** What stands under an answer that has no text yet. @param {import('./store.js').Turn} turn */
  waitingWords(turn) {
    if (this.stopping) return 'stopping …';
    if (turn.text) return 'writing …';
    const { waiting, running, batch } = this.store.state.worker ?? {};
    const ahead = Math.min(this.store.state.live?.ahead ?? 0, waiting ?? 0);
    if (ahead) return `in the queue: ${ahead} ahead, ${running} of ${batch} running`;
    return 'reading …';
  }

  stop() {
    if (!this.answering) return;
    this.stopping = true;
    this.send({ do: 'stop' });
    this.keepFocus(() => this.#drawTurns());
    this.composer.draw();
  }

  /** @param {Event} event @param {string} source */
  insert(event, source) {
    const pressed = /** @type {HTMLElement} */ (event.currentTarget);
    if (this.host.insert(this.root, source)) confirm(pressed);
    else copy(event, source);
  }

  /** @param {string} words for those who cannot see what changed */
  say(words) {
    this.news.textContent = words;
  }

  scrollToEnd() {
    this.following = true;
    this.log.scrollTop = this.log.scrollHeight;
  }

  /** Somebody is here: the kernel's side may have stopped looking after the worker. */
  #look() {
    const now = performance.now();
    if (now - this.looked < LOOK_MS) return;
    this.looked = now;
    this.send({ do: 'look' });
  }

  /** @param {KeyboardEvent} event */
  #key(event) {
    event.stopPropagation(); // keys of the notebook are not meant here
    if (event.key !== 'Escape') return;
    if (this.header.closeMenus() || this.composer.closeMenu() || this.drawer.close()) return;
    this.stop();
  }

  #scrolled() {
    const { scrollTop, scrollHeight, clientHeight } = this.log;
    this.following = scrollHeight - scrollTop - clientHeight < 40;
    this.toEnd.classList.toggle('llmk-shown', !this.following);
  }

  /** @param {Change} change */
  #take(change) {
    this.keepFocus(() => {
      if (change.kind === 'text') this.#grow(change.turn);
      else if (change.kind === 'told') this.#told(change.message);
      else this.#draw(change.kind === 'state' ? change.keys : new Set(['turns']), false);
    });
  }

  /** @param {() => void} draw something of the conversation */
  keepFocus(draw) {
    keepFocus(this.log, draw, this.log);
  }

  /** @param {string} id */
  #grow(id) {
    const turn = this.store.turns.get(id);
    if (turn) this.turns.get(id)?.draw(turn);
    if (this.following) this.scrollToEnd();
  }

  /** @param {Record<string, any>} message */
  #told(message) {
    if (message.edited) this.turns.get(message.edited)?.editor?.told(message);
    else if (message.names) this.composer.offer(message.names);
    else if (message.file && (!message.to || message.to === this.id)) this.header.hand(message);
  }

  /** @param {Set<string>} keys @param {boolean} first */
  #draw(keys, first) {
    const { state } = this.store;
    if (first || keys.has('answering')) this.#followAnswer();
    const { prefix } = state.conversations?.find((/** @type {any} */ one) => one.name === state.name) ?? {};
    if (prefix !== this.talk) this.following = true; // another conversation begins at its end
    this.talk = prefix;
    if (keys.has('turns') || keys.has('path') || keys.has('answering') || keys.has('live')) {
      this.#drawTurns();
    }
    this.#drawProblem();
    this.notice.draw();
    this.header.draw();
    this.drawer.draw();
    this.composer.draw();
    this.status.draw();
    this.root.classList.toggle('llmk-gone', !this.store.alive);
    this.log.setAttribute('aria-busy', String(Boolean(this.answering)));
    if (this.following) this.scrollToEnd();
  }

  #followAnswer() {
    const now = this.store.state.answering;
    if (!now) this.stopping = false;
    if (this.was && !now) this.say(ENDS[this.store.turns.get(this.was)?.state ?? ''] ?? '');
    if (now && now !== this.was) this.following = true;
    this.was = now;
  }

  #drawTurns() {
    /** @type {string[]} */
    const path = this.store.state.path ?? [];
    for (const [id, turn] of this.turns) {
      if (path.includes(id) || this.#isLeft(id)) continue;
      turn.element.remove();
      if (!turn.editor) this.turns.delete(id); // else it is there again with what was typed
    }
    path.forEach((id, index) => this.#drawTurn(id, index));
    this.#moveEditors(path);
    this.#keepEditors();
    if (path.length) this.empty.remove();
    else this.log.append(this.empty);
  }

  /** After a Reconnect turns have other ids: what was typed goes to the same one. @param {string[]} path */
  #moveEditors(path) {
    for (const [old, { editor }] of this.turns) {
      if (!editor || this.store.turns.has(old)) continue;
      const { role, before } = editor;
      const id = path.find((each) => {
        const turn = this.store.turns.get(each);
        return turn?.role === role && turn.text === before && !this.turns.get(each)?.editor;
      });
      const turn = id && this.store.turns.get(id);
      if (!turn) continue;
      this.turns.delete(old);
      this.turns.get(id)?.edit(turn, editor.box.value);
    }
  }

  /** Whether the turn is gone and its editor is not. @param {string} id */
  #isLeft(id) {
    return !this.store.turns.has(id) && Boolean(this.turns.get(id)?.editor);
  }

  /** What was typed into turns that are gone stands after the others, until a person has taken it. */
  #keepEditors() {
    for (const [id, turn] of this.turns) {
      if (!this.#isLeft(id)) continue;
      if (turn.element.parentNode !== this.log) this.log.append(turn.element); // a move takes the focus
      turn.editor?.draw();
    }
  }

  /** @param {string} id @param {number} index */
  #drawTurn(id, index) {
    const turn = this.store.turns.get(id);
    if (!turn) return;
    const view = this.turns.get(id) ?? new TurnView(this, id);
    this.turns.set(id, view);
    const there = this.log.children[index];
    if (there !== view.element) this.log.insertBefore(view.element, there ?? null);
    try {
      view.draw(turn);
    } catch (error) {
      console.error(error); // the turns after it, and what is typed, must not go with it
      view.drawPlainly(turn);
    }
  }

  #drawProblem() {
    const { problem, worker } = this.store.state;
    const lost = !this.store.alive || problem?.lost || worker?.state === 'gone';
    const text = !this.store.alive
      ? 'The kernel that held this panel was restarted or has gone. What you see is kept.'
      : (problem?.text ?? (worker?.state === 'gone' ? `The worker ${worker.name} has gone.` : this.noWorker));
    const choose = !lost && text !== '' && this.noWorker !== '';
    const drawn = `${lost} ${choose} ${text} ${this.failure ?? ''}`;
    if (drawn === this.problemDrawn) return;
    this.problemDrawn = drawn;
    const words = (/** @type {string} */ said, /** @type {() => void} */ click) =>
      h('button', { type: 'button', class: 'llmk-words llmk-primary', text: said, click });
    this.problem.replaceChildren();
    if (!text) return;
    const hint = this.failure ?? (this.store.alive ? problem?.hint : '');
    this.problem.append(h('span', {}, h('b', { text }), hint ? ` ${hint}` : ''));
    if (lost) this.problem.append(words('Reconnect', () => this.#reconnect()));
    if (choose) this.problem.append(words('Choose a worker', () => this.header.chooseWorker()));
  }

  async #reconnect() {
    if (this.store.alive) {
      this.send({ do: 'reconnect' });
      return;
    }
    try {
      await reconnect(this.store, this.host);
      this.failure = null;
    } catch (error) {
      this.failure = error instanceof Error ? error.message : String(error);
      this.#drawProblem();
    }
  }
}
