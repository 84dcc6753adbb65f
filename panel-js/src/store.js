/**
 * What the views of one panel in this page show, and how it changes.
 *
 * Messages are numbered by the kernel. A message that comes twice is ignored; where one is
 * missing, the ones after it are held back and everything is asked for.
 *
 * @typedef {{name: string, kind?: string, note: string, tokens: number|null, text: string}} Chip
 * @typedef {{role: string, text: string, state: string, place: number, branches: number,
 *   parent?: string|null, shown?: boolean, edited?: boolean|null, attachments?: Chip[]|null,
 *   facts?: Record<string, any>|null, problem?: string|null}} Turn
 * @typedef {Record<string, any>} Message
 * @typedef {{kind: 'state', keys: Set<string>} | {kind: 'text', turn: string, add: string} |
 *   {kind: 'told', message: Message} | {kind: 'link'}} Change
 */

/** How long to wait for everything before it is asked for again. */
export const PATIENCE_MS = 3000;

export class Store {
  /**
   * @param {(message: Message) => void} send
   * @param {(action: () => void, ms: number) => any} [later]
   */
  constructor(send, later = (action, ms) => setTimeout(action, ms)) {
    this.send = send;
    this.later = later;
    this.id = Math.random().toString(36).slice(2);
    /** @type {Record<string, any>} */
    this.state = {};
    /** @type {Map<string, Turn>} */
    this.turns = new Map();
    this.n = -1;
    /** Whether the kernel's side is there. */
    this.alive = true;
    /** @type {Map<number, Message>} */
    this.held = new Map();
    this.asking = false;
    /** @type {Set<(change: Change) => void>} */
    this.listeners = new Set();
  }

  /** @param {(change: Change) => void} listener @returns {() => void} takes it back */
  listen(listener) {
    this.listeners.add(listener);
    return () => this.listeners.delete(listener);
  }

  /** @param {Message | null | undefined} message */
  receive(message) {
    if (!message || typeof message !== 'object') return;
    if (message.whole) this.#replace(message);
    else if (typeof message.n !== 'number') this.#tell({ kind: 'told', message });
    else if (message.n > this.n + 1 || this.n < 0) this.#hold(message);
    else if (message.n === this.n + 1) this.#advance(message);
  }

  /** The kernel's side has gone, or is back. @param {boolean} alive */
  link(alive) {
    if (this.alive === alive) return;
    this.alive = alive;
    this.#tell({ kind: 'link' });
  }

  /** A turn as a kernel that has gone leaves it: nobody writes on. @param {Turn} turn @returns {Turn} */
  left(turn) {
    return turn.state === 'running' ? { ...turn, state: 'stopped', facts: this.state.live ?? {} } : turn;
  }

  /** Ask for everything. */
  sync() {
    if (this.asking) return;
    this.asking = true;
    this.send({ do: 'sync' });
    this.later(() => {
      const again = this.asking && this.alive;
      this.asking = false;
      if (again) this.sync();
    }, PATIENCE_MS);
  }

  /** @param {Message} message */
  #hold(message) {
    this.held.set(message.n, message);
    this.sync();
  }

  /** @param {Message} message */
  #replace(message) {
    this.asking = false;
    if (message.n < this.n) return;
    const keys = new Set([...Object.keys(this.state), ...Object.keys(message.whole), 'turns']);
    this.state = { ...message.whole };
    this.turns = new Map(Object.entries(message.turns ?? {}));
    this.n = message.n;
    this.#tell({ kind: 'state', keys });
    this.#release();
  }

  #release() {
    for (const number of [...this.held.keys()].sort((a, b) => a - b)) {
      const message = /** @type {Message} */ (this.held.get(number));
      if (number <= this.n) this.held.delete(number);
      else if (number === this.n + 1) {
        this.held.delete(number);
        this.#advance(message);
      }
    }
  }

  /** @param {Message} message */
  #advance(message) {
    this.n = message.n;
    if (typeof message.add === 'string') this.#append(message.turn, message.add);
    else this.#change(message);
    if (this.held.size) this.#release();
  }

  /** @param {string} id @param {string} add */
  #append(id, add) {
    const turn = this.turns.get(id);
    if (!turn) return;
    // a new object: the one of the message is every store's that hears it, and after a Reconnect the
    // page has one for the model of before and one for that of now
    this.turns.set(id, { ...turn, text: turn.text + add });
    this.#tell({ kind: 'text', turn: id, add });
  }

  /** @param {Message} message */
  #change(message) {
    const keys = new Set(Object.keys(message.set ?? {}));
    Object.assign(this.state, message.set);
    for (const [id, turn] of Object.entries(message.turns ?? {})) this.turns.set(id, turn);
    for (const [id, part] of Object.entries(message.change ?? {})) this.#alter(id, part);
    for (const id of message.gone ?? []) this.turns.delete(id);
    if (message.turns || message.change || message.gone) keys.add('turns');
    this.#tell({ kind: 'state', keys });
  }

  /** A turn that is there is another in part. @param {string} id @param {Partial<Turn>} part */
  #alter(id, part) {
    const turn = this.turns.get(id);
    if (turn) this.turns.set(id, { ...turn, ...part });
  }

  /** @param {Change} change */
  #tell(change) {
    for (const listener of [...this.listeners]) listener(change);
  }
}
