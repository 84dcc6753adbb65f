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

/** Two views on one kernel, which takes what they send in order and tells both, as late as it is asked to. */
function together() {
  const pages = [opened(), opened()];
  const taken = [0, 0];
  const late = [[], []];
  let text = '';
  const heard = {};
  /** The kernel takes what a view has sent. */
  const take = (/** @type {number} */ from) => {
    const drafts = pages[from].told('draft');
    for (const one of drafts.slice(taken[from])) {
      text = merged(one.base, one.text, text);
      heard[one.by] = one.n;
      for (const states of late) states.push({ text, by: one.by, heard: { ...heard } });
    }
    taken[from] = drafts.length;
  };
  /** A view hears of it: of several drafts maybe the last alone. */
  const tell = (/** @type {number} */ to, skips = false) => {
    for (const draft of late[to].splice(0).slice(skips ? -1 : 0)) pages[to].say({ draft });
  };
  const pass = (/** @type {number} */ from) => [take(from), tell(0), tell(1)];
  return { boxes: pages.map(({ view }) => view.composer.box), take, tell, pass, say: (/** @type {any} */ set) => pages.forEach((one) => one.say(set)) };
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

test.each(Array.from({ length: 40 }, (_, seed) => seed))('nothing that two views type is lost, however late each hears of it: %i', (seed) => {
  let state = seed + 1;
  const chance = (/** @type {number} */ most) => {
    state = (state * 48271) % 2147483647;
    return state % most;
  };
  const { boxes, take, tell } = together();
  const keys = [[...'abcdefghij'], [...'ABCDEFGHIJ']];
  while (keys[0].length + keys[1].length > 0) {
    const which = chance(2);
    const key = chance(3) ? keys[which].shift() : undefined;
    if (key) type(boxes[which], boxes[which].value + key);
    vi.advanceTimersByTime(chance(300));
    if (chance(2)) take(chance(2));
    if (chance(2)) tell(chance(2), chance(2) === 1);
  }
  for (let at = 0; at < 8; at += 1) {
    vi.advanceTimersByTime(600);
    for (const one of [0, 1]) [take(one), tell(0), tell(1)];
  }
  expect(boxes[0].value).toBe(boxes[1].value);
  expect([...boxes[0].value].sort().join('')).toBe('ABCDEFGHIJabcdefghij');
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
