/** Elements without markup: text can only become text. */

/**
 * @param {string} tag
 * @param {Record<string, any>} [props] attributes; functions are listeners; `class`, `text`
 * @param {...(Node | string | null | undefined | false)} children
 * @returns {any} the element
 */
export function h(tag, props = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(props)) {
    if (value === null || value === undefined || value === false) continue;
    if (name === 'text') element.textContent = String(value);
    else if (typeof value === 'function') element.addEventListener(name, value);
    else element.setAttribute(name, value === true ? '' : String(value));
  }
  for (const child of children) if (child) element.append(child);
  return element;
}

/**
 * The second click of a double one is not meant for what stands there by then.
 * @param {() => void} action @returns {(event: MouseEvent) => void}
 */
export function single(action) {
  return (event) => {
    if (event.detail < 2) action();
  };
}

const PATHS = {
  send: 'M12 19V5M6 11l6-6 6 6',
  stop: 'M7 7h10v10H7z',
  copy: 'M9 9h10v11H9zM5 15V4h10',
  check: 'M5 12l5 5L20 7',
  cell: 'M4 5h16v14H4zM12 9v6M9 12h6',
  again: 'M20 12a8 8 0 1 1-2.5-5.8M20 3v5h-5',
  on: 'M5 12h13M13 6l6 6-6 6',
  edit: 'M4 20h4L19 9l-4-4L4 16zM13 7l4 4',
  bin: 'M5 7h14M10 7V4h4v3M7 7l1 13h8l1-13M10 11v5M14 11v5',
  left: 'M14 6l-6 6 6 6',
  right: 'M10 6l6 6-6 6',
  plus: 'M12 5v14M5 12h14',
  clip: 'M8 12l6-6a3 3 0 0 1 4 4l-8 8a5 5 0 0 1-7-7l8-8',
  sliders: 'M4 7h9M17 7h3M4 17h3M11 17h9M13 4v6M7 14v6',
  more: 'M5 12h.01M12 12h.01M19 12h.01',
  close: 'M6 6l12 12M18 6L6 18',
  chip: 'M7 7h10v10H7zM10 3v4M14 3v4M10 17v4M14 17v4M3 10h4M3 14h4M17 10h4M17 14h4',
  chat: 'M4 5h16v11H9l-5 4z',
  start: 'M4 12h6M13 5v14M10 5h6M10 19h6',
  down: 'M6 10l6 6 6-6',
};

/** @param {keyof typeof PATHS} name */
export function icon(name) {
  const svg = document.createElementNS('http://www.w3.org/2000/svg', 'svg');
  svg.setAttribute('viewBox', '0 0 24 24');
  svg.setAttribute('aria-hidden', 'true');
  svg.setAttribute('class', `llmk-icon llmk-icon-${name}`);
  const path = document.createElementNS('http://www.w3.org/2000/svg', 'path');
  path.setAttribute('d', PATHS[name]);
  svg.append(path);
  return svg;
}

/**
 * @param {keyof typeof PATHS} name
 * @param {string} label
 * @param {(event: MouseEvent) => void} click
 * @param {Record<string, any>} [props]
 */
export function button(name, label, click, props = {}) {
  const { words, ...rest } = props;
  return h(
    'button',
    { type: 'button', class: 'llmk-button', title: label, 'aria-label': label, click, ...rest },
    icon(name),
    words && h('span', { text: words }),
  );
}
