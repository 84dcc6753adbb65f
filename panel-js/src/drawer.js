/** System prompt, presets and sampling parameters. */
import { button, h } from './dom.js';

/** @typedef {import('./view.js').View} View */

const WORDS = {
  temperature: ['Temperature', 'How adventurous: 0 always takes the likeliest token.'],
  top_p: ['Top-p', 'Keep the likeliest tokens up to this probability.'],
  top_k: ['Top-k', 'Keep this many tokens; 0 keeps all.'],
  min_p: ['Min-p', 'Keep tokens at least this likely beside the likeliest.'],
  repetition_penalty: ['Repetition penalty', 'Above 1: what was said is less likely.'],
  max_tokens: ['Max tokens', 'Empty: as many as fit.'],
  seed: ['Seed', 'The same answer again; empty draws a fresh one.'],
  stop: ['Stop strings', 'One a line, \\n for a newline; the answer ends before the first.'],
};
const SLIDERS = ['temperature', 'top_p', 'top_k', 'min_p', 'repetition_penalty'];

export class Drawer {
  /** @param {View} view */
  constructor(view) {
    this.view = view;
    this.element = h('aside', { class: 'llmk-drawer', 'aria-label': 'Controls', hidden: true });
    /** @type {Map<string, {typed: () => boolean, show: (value: any) => void}>} */
    this.fields = new Map();
    this.built = false;
    /** @type {string} */
    this.drawn = '';
  }

  toggle() {
    if (this.close()) return;
    if (!this.built) this.#build();
    this.element.hidden = false;
    this.view.header.controls.setAttribute('aria-expanded', 'true');
    this.view.send({ do: 'presets' }); // other panels may have kept some
    this.draw();
    this.preset.focus();
  }

  /** @returns {boolean} whether it was open */
  close() {
    if (this.element.hidden) return false;
    this.element.hidden = true;
    this.view.header.controls.setAttribute('aria-expanded', 'false');
    this.view.header.controls.focus();
    return true;
  }

  draw() {
    if (this.element.hidden) return;
    const { state } = this.view.store;
    if (document.activeElement !== this.system) this.system.value = state.system ?? '';
    for (const [name, field] of this.fields) {
      if (!field.typed()) field.show(state.values?.[name]);
    }
    this.#drawForget();
    const presets = JSON.stringify(state.presets);
    if (presets === this.drawn) return;
    this.drawn = presets;
    const chosen = this.preset.value;
    this.preset.replaceChildren(
      h('option', { value: '', text: 'Choose …' }),
      ...(state.presets ?? []).map((/** @type {string} */ name) => h('option', { value: name, text: name })),
    );
    this.preset.value = (state.presets ?? []).includes(chosen) ? chosen : '';
    this.#drawForget();
  }

  /** Only what was kept can be forgotten. */
  #drawForget() {
    this.forget.hidden = !(this.view.store.state.own_presets ?? []).includes(this.preset.value);
  }

  #build() {
    this.built = true;
    const { view } = this;
    this.preset = h('select', {
      class: 'llmk-field', 'aria-label': 'Preset',
      change: () => {
        if (this.preset.value) view.send({ do: 'preset', name: this.preset.value });
        this.#drawForget();
      },
    });
    this.forget = button('bin', 'Forget this preset', () => {
      view.send({ do: 'preset', forget: true, name: this.preset.value });
      this.preset.focus();
    }, { hidden: true });
    const keepName = h('input', {
      class: 'llmk-field', type: 'text', placeholder: 'name', 'aria-label': 'Name of a new preset',
      keydown: (/** @type {KeyboardEvent} */ event) => event.key === 'Enter' && keep(),
    });
    const keep = () => {
      view.send({ do: 'preset', keep: true, name: keepName.value });
      keepName.value = '';
    };
    this.system = h('textarea', {
      class: 'llmk-field', rows: 3, 'aria-label': 'System prompt', placeholder: 'What the model is told first',
      change: () => view.send({ do: 'system', text: this.system.value }),
    });
    const controls = (view.store.state.controls ?? []).map((/** @type {any} */ one) => this.#control(one));
    this.element.append(
      h('div', { class: 'llmk-drawer-head' }, h('b', { text: 'Controls' }), button('close', 'Close controls', () => this.close())),
      h(
        'div', { class: 'llmk-control' }, h('span', { text: 'Preset' }),
        h('div', { class: 'llmk-row' }, this.preset, this.forget),
      ),
      h('label', { class: 'llmk-control' }, h('span', { text: 'System prompt' }), this.system),
      ...controls,
      h(
        'div', { class: 'llmk-control' }, h('span', { text: 'Keep these as a preset' }),
        h('div', { class: 'llmk-row' }, keepName, h('button', { type: 'button', class: 'llmk-words', text: 'Keep', click: keep })),
      ),
    );
  }

  /** @param {{name: string, low: number, high: number, default: any}} one */
  #control(one) {
    const [title, hint] = WORDS[/** @type {keyof typeof WORDS} */ (one.name)] ?? [one.name, ''];
    const refused = h('span', { class: 'llmk-warn', role: 'alert' });
    const set = (/** @type {any} */ value) => {
      refused.textContent = '';
      this.view.send({ do: 'set', values: { [one.name]: value } });
    };
    const refuse = () => {
      refused.textContent = 'That is no number, so nothing has changed.';
      field.show(this.view.store.state.values?.[one.name]);
    };
    const field = SLIDERS.includes(one.name)
      ? slider(one, title, set)
      : one.name === 'stop' ? lines(title, set) : number(one, title, set, refuse);
    const element = h(
      'label', { class: 'llmk-control', title: hint },
      h('span', { class: 'llmk-control-title' }, h('span', { text: title }), field.value), field.input,
      h('span', { class: 'llmk-dim', text: hint }), refused,
    );
    // what is being typed stays; what was sent gives way to what the kernel has
    let typing = false;
    element.addEventListener('input', () => { typing = true; });
    element.addEventListener('change', () => { typing = false; });
    const typed = () => typing && document.activeElement?.closest('label') === element;
    this.fields.set(one.name, { typed, show: field.show });
    return element;
  }
}

/** @param {any} one @param {string} title @param {(value: any) => void} set */
function slider(one, title, set) {
  const whole = one.name === 'top_k';
  const value = h('output', { class: 'llmk-value' });
  const input = h('input', {
    type: 'range', min: one.low, max: one.high, step: whole ? 1 : 0.01, 'aria-label': title,
    input: () => { value.textContent = input.value; },
    change: () => set(Number(input.value) === one.default ? null : Number(input.value)),
  });
  const show = (/** @type {any} */ now) => {
    input.value = String(now ?? one.default);
    value.textContent = String(now ?? one.default);
  };
  return { input, value, show };
}

/**
 * @param {any} one @param {string} title @param {(value: any) => void} set
 * @param {() => void} refuse says that what was typed cannot be sent
 */
function number(one, title, set, refuse) {
  const input = h('input', {
    type: 'number', class: 'llmk-field', step: 1, 'aria-label': title,
    min: one.name === 'max_tokens' ? 1 : null,
    change: () => {
      // a browser says "" of what is no number to it, as 1e999; and JSON has no infinity
      if (input.validity?.badInput || !Number.isFinite(Number(input.value))) refuse();
      else set(input.value === '' ? null : Number(input.value));
    },
  });
  const show = (/** @type {any} */ now) => {
    // an empty value takes away what a browser shows but does not count as one
    if (input.validity?.badInput) input.value = '';
    const text = String(now ?? '');
    if (input.value !== text) input.value = text;
  };
  return { input, value: null, show };
}

/** @param {string} title @param {(value: any) => void} set */
function lines(title, set) {
  const input = h('textarea', {
    class: 'llmk-field', rows: 2, 'aria-label': title,
    change: () => {
      const texts = input.value.split('\n').filter(Boolean).map(unescaped);
      set(texts.length ? texts : null);
    },
  });
  const show = (/** @type {string[] | null} */ now) => { input.value = (now ?? []).map(escaped).join('\n'); };
  return { input, value: null, show };
}

/** A text on one line, as it is typed. @param {string} text */
function escaped(text) {
  return text.replaceAll('\\', '\\\\').replaceAll('\n', '\\n').replaceAll('\t', '\\t');
}

/** @param {string} typed */
function unescaped(typed) {
  /** @type {Record<string, string>} */
  const meant = { n: '\n', t: '\t', '\\': '\\' };
  return typed.replace(/\\([nt\\])/g, (_, letter) => meant[letter]);
}
