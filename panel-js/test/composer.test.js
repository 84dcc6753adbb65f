import { afterEach, beforeEach, expect, test, vi } from 'vitest';
import { opened, type } from './page.js';

beforeEach(() => vi.useFakeTimers());
afterEach(() => {
  vi.useRealTimers();
  document.body.replaceChildren();
});

test('what is typed is told after a pause, under the name of its conversation', () => {
  const { view, told } = opened();
  type(view.composer.box, 'Hi');
  vi.advanceTimersByTime(200);
  expect(told('draft')).toEqual([]);
  vi.advanceTimersByTime(100);
  expect(told('draft')).toMatchObject([{ text: 'Hi', name: 'A' }]);
});

test('typing without a pause is told twice a second', () => {
  const { view, told } = opened();
  let text = '';
  for (let at = 0; at < 20; at += 1) {
    text += 'x';
    type(view.composer.box, text);
    vi.advanceTimersByTime(100);
  }
  expect(told('draft').length).toBeGreaterThanOrEqual(3);
  expect(told('draft').length).toBeLessThanOrEqual(4);
});

test('a conversation that is left takes along what was typed in it', () => {
  const { view, told, say } = opened();
  type(view.composer.box, 'for A');
  say({ name: 'B', draft: { text: 'for B', by: '' } });
  expect(told('draft')).toMatchObject([{ text: 'for A', name: 'A' }]);
  expect(view.composer.box.value).toBe('for B');
  vi.advanceTimersByTime(1000);
  expect(told('draft').length).toBe(1);
});

test('one that was renamed at the same time takes it under its new name', () => {
  const { view, told, say } = opened();
  type(view.composer.box, 'for A');
  const conversations = [{ name: 'Z', prefix: 'c1t' }, { name: 'B', prefix: 'c2t' }];
  say({ name: 'B', conversations });
  expect(told('draft')).toMatchObject([{ text: 'for A', name: 'Z' }]);
});

test('a new name alone leaves what is typed', () => {
  const { view, told, say } = opened();
  type(view.composer.box, 'for A');
  say({ name: 'Z', conversations: [{ name: 'Z', prefix: 'c1t' }] });
  expect(view.composer.box.value).toBe('for A');
  vi.advanceTimersByTime(300);
  expect(told('draft')).toMatchObject([{ text: 'for A', name: 'Z' }]);
});

test('of one that was deleted nothing is told', () => {
  const { view, told, say } = opened();
  type(view.composer.box, 'for A');
  say({ name: 'B', conversations: [{ name: 'B', prefix: 'c2t' }] });
  vi.advanceTimersByTime(1000);
  expect(told('draft')).toEqual([]);
});

test('Enter attaches, and is no new line in the box', () => {
  const { button, find, told } = opened();
  button('Attach a variable or a file').click();
  const enter = new KeyboardEvent('keydown', { key: 'Enter', bubbles: true, cancelable: true });
  const field = find('.llmk-attach input');
  field.value = 'df';
  field.dispatchEvent(enter);
  expect(told('attach')).toEqual([{ do: 'attach', name: 'df' }]);
  expect(enter.defaultPrevented).toBe(true);
});

test('where another conversation is answered, it says which one and why nothing can be sent', () => {
  const { say, find } = opened({ answering: 'c2t1' });
  expect(find('.llmk-fit').textContent).toBe('“B” is being answered. Stop it, or wait, to ask here.');
  say({ answering: null });
  expect(find('.llmk-fit').textContent).toBe('');
});

test('how the reply starts is told with what is typed, and stays with its conversation', () => {
  const { view, told, say, button } = opened();
  const { start } = view.composer;
  button('Start the reply with …').click();
  type(start, 'Sure: ');
  vi.advanceTimersByTime(300);
  expect(told('draft')).toMatchObject([{ text: '', start: 'Sure: ', name: 'A' }]);
  say({ draft: { text: '', start: 'Sure: ', by: view.id } });
  say({ name: 'B', draft: { text: '', start: '', by: '' } });
  expect(start.hidden).toBe(true);
  say({ name: 'A', draft: { text: '', start: 'Sure: ', by: view.id } });
  expect([start.hidden, start.value]).toEqual([false, 'Sure: ']);
});

test('with a question that is refused the start of its reply comes back', () => {
  const { view, say, button, told } = opened();
  const { box, start } = view.composer;
  button('Start the reply with …').click();
  type(start, 'Sure: ');
  type(box, 'Why?');
  button('Send (Enter)').click();
  expect(told('send')).toEqual([{ do: 'send', text: 'Why?', start: 'Sure: ' }]);
  expect(start.hidden).toBe(true);
  say({ draft: { text: '', start: '', by: '' } });
  say({ draft: { text: 'Why?', start: 'Sure: ', by: '' } });
  expect([box.value, start.hidden, start.value]).toEqual(['Why?', false, 'Sure: ']);
});

test('a box for the start that is still empty stays open while the question is typed', () => {
  const { view, say, button } = opened();
  button('Start the reply with …').click();
  type(view.composer.box, 'Why?');
  vi.advanceTimersByTime(300);
  say({ draft: { text: 'Why?', start: '', by: view.id } });
  say({ live: {} });
  expect(view.composer.start.hidden).toBe(false);
});
