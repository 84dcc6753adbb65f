import { afterEach, expect, test, vi } from 'vitest';
import { figures } from '../src/turns.js';
import { opened, turn } from './page.js';

afterEach(() => {
  vi.restoreAllMocks();
  document.body.replaceChildren();
});

test('the figures of an answer', () => {
  const facts = { tokens: 1200, rate: 10.5, first: 0.25, prompt: 7, cached: 3, reason: 'length' };
  expect(figures(facts).map(([words]) => words)).toEqual([
    '1,200 tokens', '10.5 tok/s', '250 ms to first', '7 read, 3 cached', 'cut at max tokens',
  ]);
});

test('figures that are none are left out', () => {
  for (const wrong of ['abc', {}, [], null, -5, NaN, Infinity, true]) {
    const facts = { tokens: wrong, rate: wrong, first: wrong, prompt: wrong, cached: wrong };
    expect(figures(facts)).toEqual([]);
  }
});

test('a turn that cannot be drawn is shown as it is, and those after it are drawn', () => {
  vi.spyOn(console, 'error').mockImplementation(() => {});
  const { view } = opened({}, {
    t1: turn('assistant', 'odd', { attachments: 5 }),
    t2: turn('user', 'after it'),
  });
  expect(view.log.textContent).toContain('odd');
  expect(view.log.textContent).toContain('after it');
});

test('the second click of a double one does nothing more', () => {
  const { button, told } = opened({}, { q: turn('user', 'q'), a: turn('assistant', 'one', { parent: 'q' }) });
  for (const [words, kind] of [['Regenerate', 'regenerate'], ['Delete with all that follows', 'delete']]) {
    for (const detail of [1, 2]) button(words).dispatchEvent(new MouseEvent('click', { detail, bubbles: true }));
    expect(told(kind).length).toBe(1);
  }
});

test('an answer without a word says so, and one token is one', () => {
  const { find } = opened({}, { a: turn('assistant', '', { facts: { tokens: 1 } }) });
  expect(find('.llmk-facts').textContent).toBe('no text1 token');
});
