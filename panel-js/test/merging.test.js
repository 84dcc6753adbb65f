import { afterEach, beforeEach, expect, test, vi } from 'vitest';
import { merged } from '../src/merging.js';
import { opened, type } from './page.js';

beforeEach(() => vi.useFakeTimers());
afterEach(() => {
  vi.useRealTimers();
  document.body.replaceChildren();
});

test.each([
  ['', 'mine', 'theirs', 'theirsmine'],
  ['a c', 'a b c', 'a c d', 'a b c d'],
  ['a c', 'a c d', 'a b c', 'a b c d'],
  ['one two', 'two', 'one two three', 'two three'],
  ['same', 'same', 'other', 'other'],
  ['a', 'ab', 'ab', 'ab'],
  ['word', 'wind', 'wand', 'wanind'],
])('of %j, %j here and %j there come to %j', (before, mine, theirs, both) => {
  expect(merged(before, mine, theirs)).toBe(both);
});

/** Two views on one kernel, which hears what they send in order and tells both. */
function together() {
  const pages = [opened(), opened()];
  const heard = [0, 0];
  const pass = (/** @type {number} */ from) => {
    const drafts = pages[from].told('draft');
    for (const { text, by } of drafts.slice(heard[from])) for (const one of pages) one.say({ draft: { text, by } });
    heard[from] = drafts.length;
  };
  return { boxes: pages.map(({ view }) => view.composer.box), pass, say: (/** @type {any} */ set) => pages.forEach((one) => one.say(set)) };
}

test('two views that type at the same time keep what both typed, and agree', () => {
  const { boxes, pass } = together();
  const keys = [...'first'].map((key, at) => [key, 'SECON'[at]]);
  for (const pair of keys) {
    pair.forEach((key, at) => type(boxes[at], boxes[at].value + key));
    vi.advanceTimersByTime(300);
    pass(0);
    pass(1);
  }
  for (let at = 0; at < 4; at += 1) {
    vi.advanceTimersByTime(300);
    pass(1);
    pass(0);
  }
  expect(boxes[0].value).toBe(boxes[1].value);
  expect([...boxes[0].value].sort().join('')).toBe([...'firstSECON'].sort().join(''));
});

test('what another view types leaves the caret where it is', () => {
  const { boxes, say } = together();
  type(boxes[0], 'ab');
  boxes[0].focus();
  boxes[0].setSelectionRange(1, 1);
  say({ draft: { text: 'theirs ', by: 'another view' } });
  expect(boxes[0].value).toBe('theirs ab');
  expect(boxes[0].selectionStart).toBe(8);
});

test('a draft that was refused comes back before what was typed since, with the caret at the end', () => {
  const { boxes, say } = together();
  type(boxes[0], 'question');
  boxes[0].dispatchEvent(new KeyboardEvent('keydown', { key: 'Enter' }));
  type(boxes[0], ' and more');
  say({ draft: { text: 'question', by: '' } });
  expect(boxes[0].value).toBe('question and more');
  expect(boxes[0].selectionStart).toBe(boxes[0].value.length);
});
