import { afterEach, expect, test } from 'vitest';
import { opened, turn, type } from './page.js';

afterEach(() => document.body.replaceChildren());

const name = () => document.activeElement?.getAttribute('aria-label');
const pair = (place, said) => ({
  q: turn('user', 'question'), [`a${place}`]: turn('assistant', said, { place, branches: 3, parent: 'q' }),
});

test('going through branches with the keyboard, the focus stays on the arrow', () => {
  const { say, button } = opened({}, pair(1, 'one'));
  button('Branch after').focus();
  say({ path: ['q', 'a2'] }, { turns: pair(2, 'two') });
  expect(name()).toBe('Branch after');
  say({ path: ['q', 'a3'] }, { turns: pair(3, 'three') });
  expect(name()).toBe('Branch before');
});

test('a button that goes when an answer begins leaves the focus in the conversation', () => {
  const { say, button } = opened({}, pair(1, 'one'));
  button('Regenerate').focus();
  say({ path: ['q', 'a2'], answering: 'a2' }, { turns: { a2: turn('assistant', '', { state: 'running' }) } });
  expect(name()).toBe('Conversation');
});

test('an editor that is cancelled gives the focus back to Edit', () => {
  const { find, button } = opened({}, { q: turn('user', 'question') });
  button('Edit').click();
  find('.llmk-edit').dispatchEvent(new KeyboardEvent('keydown', { key: 'Escape', bubbles: true }));
  expect(name()).toBe('Edit');
});

test('what is taken off gives the focus to what is beside it, or to the box', () => {
  const chip = (/** @type {string} */ one) => ({ name: one, note: '', tokens: 1, text: 'x' });
  const { say, button } = opened({ pending: [chip('a'), chip('b')] });
  button('Take a off').focus();
  say({ pending: [chip('a'), { ...chip('b'), tokens: 2 }] });
  expect(name()).toBe('Take a off');
  say({ pending: [chip('b')] });
  expect(name()).toBe('Your question');
});

test('the focus outside of what is drawn anew stays where it is', () => {
  const { say, find } = opened({}, pair(1, 'one'));
  type(find('.llmk-box'), 'typing');
  find('.llmk-box').focus();
  say({ path: ['q', 'a2'] }, { turns: pair(2, 'two') });
  expect(name()).toBe('Your question');
});
