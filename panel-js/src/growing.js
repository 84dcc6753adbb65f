/**
 * A text that grows, as Markdown. Blocks that are finished are made once and kept, so that a
 * selection in them stays and a long answer costs no more at its end than at its beginning;
 * only the tail, from the last block on, is parsed again.
 */
import { clean, parser } from './markdown.js';

/** A block of code that is still open is coloured up to here; then when it is finished. */
const COLOURED = 4000;
/** A tail longer than this, such as an open table of a thousand rows, rests after each draw for so
 * many times as long as that took: the page is there for other things, too. */
const LONG = 4000;
const RESTS = 4;

export class Growing {
  /** @param {HTMLElement} root @param {(part: ParentNode) => void} [decorate] */
  constructor(root, decorate = () => {}) {
    this.root = root;
    this.decorate = decorate;
    this.tail = document.createElement('div');
    this.tail.className = 'llmk-tail';
    root.replaceChildren(this.tail);
    this.text = '';
    /** Where the tail begins in the text. */
    this.kept = 0;
    /** @type {Record<string, any>} link definitions of what is kept */
    this.env = {};
    this.finished = false;
    /** When it may be drawn again before it is finished. */
    this.due = 0;
    /** @type {any} */
    this.timer = null;
  }

  /** Show this text, or what there is of it so far. @param {string} text @param {boolean} finished */
  set(text, finished) {
    if (text === this.text && finished === this.finished) return;
    // what goes on after its end goes on inside its last block, which was kept as a finished one
    const goesOn = this.finished && !finished;
    if (goesOn || !text.startsWith(this.text.slice(0, this.kept))) this.#reset();
    this.text = text;
    this.finished = finished;
    const wait = this.due - performance.now();
    if (finished || wait <= 0) this.#draw();
    else this.timer ??= setTimeout(() => this.#draw(), wait);
  }

  #draw() {
    clearTimeout(this.timer);
    this.timer = null;
    const began = performance.now();
    try {
      if (this.finished) this.#whole();
      else this.#grow();
    } catch {
      this.#plainly(); // a text that no parser can take is still there to be read
    }
    this.due = 0;
    if (this.text.length - this.kept < LONG) return;
    void this.root.offsetHeight; // finding places is a good part of it
    const now = performance.now();
    this.due = now + RESTS * (now - began);
  }

  #plainly() {
    this.#reset();
    const words = document.createElement('pre');
    words.textContent = this.text;
    this.tail.replaceChildren(words);
  }

  #reset() {
    this.root.replaceChildren(this.tail);
    this.kept = 0;
    this.env = {};
  }

  #grow() {
    const source = this.text.slice(this.kept);
    const tokens = parser.parse(source, this.env);
    const starts = tokens
      .map((token, index) => ({ token, index }))
      .filter(({ token }) => token.level === 0 && token.nesting >= 0 && token.map);
    const last = starts.at(-1);
    if (last?.token.map && last.index > 0 && last.token.map[0] > 0) {
      this.#keep(tokens.slice(0, last.index));
      this.kept += offset(source, last.token.map[0]);
    }
    this.#showTail(tokens.slice(last?.index ?? 0));
  }

  /** @param {any[]} tokens */
  #keep(tokens) {
    const part = clean(parser.renderer.render(tokens, parser.options, this.env));
    this.decorate(part);
    this.tail.before(part);
  }

  /** @param {any[]} tokens */
  #showTail(tokens) {
    const [first] = tokens;
    if (first?.type === 'fence' && first.content.length > COLOURED) first.info = '';
    const part = clean(parser.renderer.render(tokens, parser.options, this.env));
    this.decorate(part);
    this.tail.replaceChildren(part);
  }

  /** The end: the tail is kept too. Definitions that came late are put to use everywhere. */
  #whole() {
    const tokens = parser.parse(this.text.slice(this.kept), this.env);
    const late = this.kept > 0 && Object.keys(this.env.references ?? {}).length > 0;
    if (late) this.#reset();
    const part = clean(
      late
        ? parser.render(this.text)
        : parser.renderer.render(tokens, parser.options, this.env),
    );
    this.decorate(part);
    this.tail.replaceChildren();
    this.tail.before(part);
    this.kept = this.text.length;
  }
}

/** Where a line begins. @param {string} text @param {number} line */
function offset(text, line) {
  let at = 0;
  for (let count = 0; count < line; count += 1) at = text.indexOf('\n', at) + 1;
  return at;
}
