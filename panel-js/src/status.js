/** One quiet line: how full the context is, and what the worker does. */
import { h } from './dom.js';

/** @typedef {import('./view.js').View} View */

/** Where the kernel or the front end has no thread for widgets. */
const WAITS = 'clicks wait for running cells';
const WAITS_MORE = 'This kernel or front end has no threads for widgets. Stop acts when the running '
  + 'cell has ended; interrupting the cell lets it through.';

export class Status {
  /** @param {View} view */
  constructor(view) {
    this.view = view;
    this.filled = h('div', { class: 'llmk-filled' });
    this.track = h('div', {
      class: 'llmk-track', role: 'meter', 'aria-label': 'Context used', 'aria-valuemin': 0,
      'aria-valuemax': 100, 'aria-valuenow': 0,
    }, this.filled);
    this.words = h('span', { class: 'llmk-context-words' });
    this.model = h('span', { class: 'llmk-model' });
    this.figures = h('span', { class: 'llmk-figures' });
    this.worker = h('span', { class: 'llmk-worker-words' }, this.model, this.figures);
    this.waits = h('span', { class: 'llmk-warn', text: WAITS, title: WAITS_MORE, hidden: true });
    this.element = h(
      'footer', { class: 'llmk-status' }, this.track, this.words, this.worker, this.waits,
    );
  }

  draw() {
    const { alive, state } = this.view.store;
    const { context, worker, workers, clicks_wait: waits } = state;
    this.waits.hidden = !waits;
    const { used, limit } = context ?? {};
    const known = typeof used === 'number' && limit;
    const share = known ? Math.min(1, used / limit) : 0;
    this.filled.style.width = `${Math.max(share * 100, known ? 1 : 0)}%`;
    this.track.classList.toggle('llmk-full', known && used > limit);
    this.track.classList.toggle('llmk-nearly', share > 0.85);
    this.track.setAttribute('aria-valuenow', String(Math.round(share * 100)));
    const number = (/** @type {number} */ count) => count.toLocaleString('en');
    const words = known ? `${number(used)} of ${number(limit)} tokens` : '';
    this.track.setAttribute('aria-valuetext', words || 'not known');
    put(this.words, words);
    put(this.model, !alive ? '' : workerWords(worker ?? {}, (workers ?? []).length));
    put(this.figures, figuresOf(alive && worker ? worker : {}).map((each) => ` · ${each}`).join(''));
  }
}

/** @param {Record<string, any>} worker @param {number} running how many there are to choose from */
function workerWords(worker, running) {
  if (worker.state === 'gone') return `${worker.name} has gone`;
  if (worker.state === 'none' || !worker.state) {
    if (worker.name && worker.why) return `${worker.name} does not run`;
    return running ? 'no worker is chosen' : 'no worker runs';
  }
  if (worker.state === 'quiet') return `${worker.name} does not answer yet`;
  if (!worker.model) return `${worker.name}: ${worker.state}`;
  return [worker.model, worker.quantization, worker.dtype].filter(Boolean).join(' ');
}

/** What has to be seen of a worker whatever the length of its model's name. @param {Record<string, any>} worker */
function figuresOf(worker) {
  /** @type {string[]} */
  const words = [];
  if (worker.batch) words.push(`batch ${worker.running}/${worker.batch}`);
  if (worker.waiting) words.push(`${worker.waiting} waiting`);
  if (worker.rate) words.push(`${worker.rate} tok/s`);
  if (worker.memory) words.push(size(worker.memory));
  return words;
}

/** @param {number} bytes */
function size(bytes) {
  return bytes >= 1e9 ? `${(bytes / 1e9).toFixed(1)} GB` : `${Math.round(bytes / 1e6)} MB`;
}

/** @param {HTMLElement} element @param {string} text */
function put(element, text) {
  if (element.textContent !== text) {
    element.textContent = text;
    element.title = text;
  }
}
