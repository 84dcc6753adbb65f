import { afterEach, expect, test } from 'vitest';
import { opened, turn } from './page.js';

afterEach(() => document.body.replaceChildren());

const TURNS = { c1t1: turn('user', 'question'), c1t2: turn('assistant', 'answer', { parent: 'c1t1' }) };

/** A page with the question's editor open and something typed. */
function editing() {
  const page = opened({}, TURNS);
  page.button('Edit').click();
  page.find('.llmk-edit').value = 'typed';
  return page;
}

test('the editor stays until the kernel has the edit', () => {
  const { view, find, button, told, store } = editing();
  button('Save and answer').click();
  button('Save and answer').click();
  expect(told('edit')).toMatchObject([{ turn: 'c1t1', text: 'typed', answer: true }]);
  expect(find('.llmk-edit').value).toBe('typed');
  store.receive({ edited: 'c1t1', by: 'another view', taken: true });
  expect(find('.llmk-edit').value).toBe('typed');
  store.receive({ edited: 'c1t1', by: view.id, taken: true });
  expect(find('.llmk-edit')).toBeNull();
});

test('an edit that was refused can be saved again', () => {
  const { view, find, button, told, store } = editing();
  button('Save only').click();
  store.receive({ edited: 'c1t1', by: view.id, taken: false });
  expect(find('.llmk-edit').value).toBe('typed');
  button('Save only').click();
  expect(told('edit').length).toBe(2);
});

test('while an answer is written it cannot be saved, and the reason stands there', () => {
  const { find, button, told, say } = editing();
  say({ answering: 'c1t2' });
  expect(button('Save only').disabled).toBe(true);
  expect(find('.llmk-edit-actions').textContent).toContain('An answer is being written');
  const press = new KeyboardEvent('keydown', { key: 'Enter', ctrlKey: true });
  find('.llmk-edit').dispatchEvent(press);
  expect(told('edit')).toEqual([]);
  say({ answering: null });
  expect(button('Save only').disabled).toBe(false);
  expect(find('.llmk-edit').value).toBe('typed');
});

test('nor while the kernel is away', () => {
  const { find, button, told, store } = editing();
  store.link(false);
  expect(button('Save only').disabled).toBe(true);
  expect(find('.llmk-edit-actions').textContent).toContain('Reconnect');
  store.link(true);
  button('Save only').click();
  expect(told('edit').length).toBe(1);
});

test('what is typed is there again after another conversation was shown', () => {
  const { find, say } = editing();
  say({ name: 'B', path: [] });
  expect(find('.llmk-edit')).toBeNull();
  say({ name: 'A', path: ['c1t1', 'c1t2'] });
  expect(find('.llmk-edit').value).toBe('typed');
});

test('and after a Reconnect, where turns have other ids', () => {
  const { find, store } = editing();
  const turns = { 'c2-at1': turn('user', 'question'), 'c2-at2': turn('assistant', 'answer') };
  store.n = -1;
  store.receive({ n: 0, whole: { ...store.state, path: Object.keys(turns) }, turns });
  expect(find('.llmk-edit').value).toBe('typed');
});

test('what is typed into a turn that another view deletes can still be taken from there', () => {
  const { find, button, say } = editing();
  say({ path: [] }, { gone: ['c1t1', 'c1t2'] });
  expect(find('.llmk-edit').value).toBe('typed');
  expect(button('Save only').disabled).toBe(true);
  expect(find('.llmk-edit-actions').textContent).toContain('deleted');
  say({ path: ['c1t3'] }, { turns: { c1t3: turn('user', 'a new one') } });
  expect(find('.llmk-log').firstElementChild?.textContent).toContain('a new one');
  expect(find('.llmk-edit').value).toBe('typed');
  button('Cancel').click();
  expect(find('.llmk-edit')).toBeNull();
  expect(find('.llmk-log').children.length).toBe(1);
});

test('and saved, where the deletion is undone', () => {
  const { button, say, told } = editing();
  say({ path: [] }, { gone: ['c1t1', 'c1t2'] });
  say({ path: ['c1t1', 'c1t2'] }, { turns: TURNS });
  button('Save only').click();
  expect(told('edit')).toMatchObject([{ turn: 'c1t1', text: 'typed' }]);
});
