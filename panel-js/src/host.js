/**
 * What the page around the panel offers: cells, a theme, a kernel. All of it is looked for and
 * none of it is needed: anywidget promises only get, set, send, on and off of a model.
 */

/** @typedef {import('./store.js').Store} Store */

export class Host {
  /** @param {any} model */
  constructor(model) {
    this.manager = model.widget_manager;
    /** @type {string | undefined} */
    this.key = model.get('key');
  }

  get #notebook() {
    return this.manager?.context?.model?.sharedModel;
  }

  /** Whether code can be put into a new cell. */
  get hasCells() {
    return typeof this.#notebook?.insertCell === 'function';
  }

  /** Put code into a new cell under the panel's. @param {Element} inside @param {string} source */
  insert(inside, source) {
    const at = place(inside);
    if (at === null || !this.hasCells) return false;
    this.#notebook.insertCell(at + 1, { cell_type: 'code', source, metadata: {} });
    return true;
  }

  /** Where what is typed is kept in this browser: the same after the cell has run again. */
  draftKey(/** @type {Element} */ inside) {
    const at = place(inside);
    const id = at === null ? null : this.#notebook?.getCell?.(at)?.id;
    const path = this.manager?.context?.path;
    return path && id ? `llmkernel:draft:${path}#${id}` : `llmkernel:draft:${this.key}`;
  }

  /** The kernel of the notebook, where code can be run in it. */
  get kernel() {
    return this.manager?.context?.sessionContext?.session?.kernel ?? null;
  }

  /**
   * Tell when the kernel is shut down or another one takes its place; of a restart the model tells.
   * @param {() => void} gone
   */
  whenGone(gone) {
    const changed = this.manager?.context?.sessionContext?.kernelChanged;
    changed?.connect?.((/** @type {any} */ _, /** @type {any} */ { oldValue, newValue }) => {
      if (oldValue && oldValue.id !== newValue?.id) gone();
    });
  }

  get #noKernel() {
    const known = this.manager?.context?.sessionContext;
    return known ? 'No kernel runs: start one, then Reconnect.' : 'Run the cell again to go on.';
  }

  /** The model as the front end has it, with more than a proxy tells. */
  async model() {
    return this.manager?.get_model?.(this.key);
  }

  /**
   * Make the panel again in a kernel that knows nothing of it, with all that was said.
   * @param {Store} store
   * @returns {Promise<any>} the new model
   */
  async revive(store) {
    const kernel = this.kernel;
    if (!kernel) throw new Error(this.#noKernel);
    const saved = JSON.stringify(JSON.stringify(remembered(store)));
    const code = `import llmkernel.notebook.panel.revival as _r; _r.revive(${JSON.stringify(this.key)}, ${saved}); del _r`;
    const reply = await kernel.requestExecute({ code, silent: true, store_history: false }).done;
    if (reply?.content?.status !== 'ok') {
      throw new Error(reply?.content?.evalue || 'The kernel could not make the panel again.');
    }
    return this.model();
  }
}

/** @param {Store} store what a new kernel has to be told */
export function remembered(store) {
  const { state } = store;
  const { text = '', start = '' } = state.draft ?? {};
  const here = { system: state.system, draft: text, start, pending: state.pending };
  const talks = (state.conversations ?? []).map((/** @type {any} */ one) => ({
    name: one.name,
    ...(one.name === state.name ? here : state.aside?.[one.name]),
    turns: turnsOf(store, one.prefix),
  }));
  const values = Object.entries(state.values ?? {}).filter(([, value]) => value !== null);
  return {
    current: state.name,
    talks,
    worker: state.worker?.name ?? null,
    values: { ...state.further, ...Object.fromEntries(values) },
  };
}

/**
 * The turns of one conversation with all its branches, each after the one that it follows.
 * @param {Store} store @param {string} prefix what their ids begin with
 */
function turnsOf(store, prefix) {
  const number = (/** @type {string} */ id) => Number(id.slice(prefix.length));
  const ids = [...store.turns.keys()]
    .filter((id) => id.startsWith(prefix))
    .sort((one, other) => number(one) - number(other));
  return ids.map((id) => {
    const turn = store.left(/** @type {import('./store.js').Turn} */ (store.turns.get(id)));
    const { role, text, state, shown, attachments, facts, problem, edited } = turn;
    return {
      role, text, state, shown, attachments: attachments ?? [], facts: facts ?? {},
      problem: problem ?? '', edited: Boolean(edited), parent: turn.parent ? ids.indexOf(turn.parent) : null,
    };
  });
}

/** The number of the cell that an element is in. @param {Element} inside */
function place(inside) {
  const cell = inside.closest('.jp-Cell');
  if (!(cell instanceof HTMLElement)) return null;
  const said = cell.dataset.windowedListIndex;
  if (said !== undefined) return Number(said);
  const all = cell.parentElement?.querySelectorAll(':scope > .jp-Cell') ?? [];
  const at = [...all].indexOf(cell);
  return at < 0 ? null : at;
}

/** While a panel lives, its saved transcript is hidden. @param {HTMLElement} el */
export function hideTranscript(el) {
  const area = el.closest('.jp-OutputArea, .output_area, .cell-output');
  area?.classList.add('llmk-live');
  return () => {
    if (area && !area.querySelector('.llmk')) area.classList.remove('llmk-live');
  };
}

/** Follow the page's theme. @param {HTMLElement} root @returns {() => void} */
export function followTheme(root) {
  const query = matchMedia('(prefers-color-scheme: dark)');
  const apply = () => root.classList.toggle('llmk-dark', isDark(query.matches));
  const observer = new MutationObserver(apply);
  observer.observe(document.body, {
    attributes: true,
    attributeFilter: ['data-jp-theme-light', 'data-vscode-theme-kind', 'class'],
  });
  query.addEventListener('change', apply);
  apply();
  return () => {
    observer.disconnect();
    query.removeEventListener('change', apply);
  };
}

/** @param {boolean} preferred */
function isDark(preferred) {
  const { jpThemeLight, vscodeThemeKind } = document.body.dataset;
  if (jpThemeLight) return jpThemeLight === 'false';
  if (vscodeThemeKind) return !vscodeThemeKind.endsWith('light');
  return preferred;
}
