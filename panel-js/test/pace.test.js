import { afterEach, expect, test, vi } from 'vitest';
import { Growing } from '../src/growing.js';

afterEach(() => {
  vi.useRealTimers();
  vi.restoreAllMocks();
});

/** @param {number} cost of each draw, in milliseconds */
function drawn(cost) {
  vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout'] });
  const clock = { now: 1000 };
  vi.spyOn(performance, 'now').mockImplementation(() => clock.now);
  const root = document.createElement('div');
  const growing = new Growing(root, () => { clock.now += cost; });
  const pass = (/** @type {number} */ ms) => {
    clock.now += ms;
    vi.advanceTimersByTime(ms);
  };
  return { root, growing, pass };
}

const rows = (/** @type {number} */ count) => '| a |\n|---|\n' + `| ${'x'.repeat(5000)} |\n`.repeat(count);

test('a long tail leaves most of the time to the page', () => {
  const { root, growing, pass } = drawn(100);
  growing.set(rows(1), false);
  growing.set(rows(2), false);
  pass(300);
  growing.set(rows(3), false);
  expect(root.querySelectorAll('td').length).toBe(1);
  pass(100);
  expect(root.querySelectorAll('td').length).toBe(3);
});

test('the end is drawn at once, and nothing after it', () => {
  const { root, growing, pass } = drawn(100);
  growing.set(rows(1), false);
  growing.set(rows(2), false);
  growing.set(rows(3), true);
  const cells = [...root.querySelectorAll('td')];
  expect(cells.length).toBe(3);
  pass(1000);
  expect([...root.querySelectorAll('td')]).toEqual(cells);
});

test('a short tail is drawn each time', () => {
  const { root, growing } = drawn(100);
  for (const text of ['one', 'one two', 'one two three']) {
    growing.set(text, false);
    expect(root.textContent?.trim()).toBe(text);
  }
});
