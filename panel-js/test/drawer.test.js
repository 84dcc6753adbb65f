import { afterEach, expect, test } from 'vitest';
import { opened, type } from './page.js';

afterEach(() => document.body.replaceChildren());

/** A page with the controls open; the field of Max tokens. */
function controls() {
  const page = opened({
    values: { max_tokens: 40 }, presets: [], own_presets: [],
    controls: [{ name: 'max_tokens', low: 0, high: null, default: null }],
  });
  page.view.drawer.toggle();
  return { ...page, field: page.find('input[aria-label="Max tokens"]') };
}

const change = (field) => field.dispatchEvent(new Event('change', { bubbles: true }));

test('a value that was refused gives way to the one that holds, in the field that has the focus too', () => {
  const { field, told, say } = controls();
  field.focus();
  type(field, '1.5');
  say({ live: {} });
  expect(field.value).toBe('1.5');
  change(field);
  expect(told('set')).toMatchObject([{ values: { max_tokens: 1.5 } }]);
  say({ problem: { text: 'no', number: 1 } });
  expect(field.value).toBe('40');
});

test('what a browser takes for no number removes nothing', () => {
  const { field, told, find } = controls();
  field.focus();
  type(field, '');
  Object.defineProperty(field, 'validity', { value: { badInput: true } });
  change(field);
  expect(told('set')).toEqual([]);
  expect(field.value).toBe('40');
  expect(find('.llmk-drawer').textContent).toContain('That is no number');
});

test('an empty field takes the limit away', () => {
  const { field, told } = controls();
  type(field, '');
  change(field);
  expect(told('set')).toEqual([{ do: 'set', values: { max_tokens: null } }]);
});

test('Enter keeps a preset under the name that was typed', () => {
  const { find, told } = controls();
  const name = find('[aria-label="Name of a new preset"]');
  type(name, 'mine');
  name.dispatchEvent(new KeyboardEvent('keydown', { key: 'Enter', bubbles: true }));
  expect(told('preset')).toEqual([{ do: 'preset', keep: true, name: 'mine' }]);
  expect(name.value).toBe('');
});

test('a stop string with a newline is one line, and stays what it is when another is added', () => {
  const stop = ['\n\nYou:', 'a\\nb'];
  const page = opened({
    values: { stop }, presets: [], own_presets: [],
    controls: [{ name: 'stop', low: null, high: null, default: [] }],
  });
  page.view.drawer.toggle();
  const field = page.find('[aria-label="Stop strings"]');
  expect(field.value).toBe('\\n\\nYou:\na\\\\nb');
  type(field, `${field.value}\n\\n`);
  change(field);
  expect(page.told('set')).toEqual([{ do: 'set', values: { stop: [...stop, '\n'] } }]);
});
