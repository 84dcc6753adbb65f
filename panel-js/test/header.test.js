import { afterEach, expect, test, vi } from 'vitest';
import { opened } from './page.js';

afterEach(() => document.body.replaceChildren());

test('a file is handed over in the tab that asked for it alone', () => {
  const { view, find, button, told, store } = opened();
  const hand = vi.spyOn(view.header, 'hand').mockImplementation(() => {});
  find('.llmk-pill').click();
  button('Export as JSON').click();
  const [{ to }] = told('export');
  const elsewhere = opened(); // another tab counts its views from one, too
  elsewhere.view.prefix = view.prefix;
  const there = vi.spyOn(elsewhere.view.header, 'hand').mockImplementation(() => {});
  for (const each of [store, elsewhere.store]) each.receive({ file: 'A.json', text: '{}', kind: 'json', to });
  expect(hand).toHaveBeenCalledTimes(1);
  expect(there).not.toHaveBeenCalled();
});

test('one turn is one turn', () => {
  const { find, view } = opened({ conversations: [{ name: 'A', prefix: 'c1t', turns: 1 }] });
  find('.llmk-pill').click();
  expect(view.header.menu.textContent).toContain('1 turn');
  expect(view.header.menu.textContent).not.toContain('1 turns');
});

test('Enter renames, and presses nothing else', () => {
  const { button, find, told } = opened();
  button('Conversation: A').click();
  const enter = new KeyboardEvent('keydown', { key: 'Enter', bubbles: true, cancelable: true });
  const field = find('[aria-label="Name of this conversation"]');
  field.value = 'New';
  field.dispatchEvent(enter);
  expect(told('rename')).toEqual([{ do: 'rename', name: 'New' }]);
  expect(enter.defaultPrevented).toBe(true);
});

test('after a start that failed the dot says again how the worker is', () => {
  const worker = { name: 'w', state: 'ready' };
  const { find, say } = opened({ worker, loading: { title: 'reading', model: 'm' } });
  expect(find('.llmk-dot-loading')).not.toBe(null);
  say({ loading: { model: 'm', failed: 'There is no folder m.' } });
  expect(find('.llmk-dot-ready')).not.toBe(null);
});
