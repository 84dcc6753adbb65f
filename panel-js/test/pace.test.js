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

test('a tail that takes long to draw leaves most of the time to the page', () => {
  const { root, growing, pass } = drawn(100);
  growing.set('| a |\n|---|\n| 1 |\n', false);
  growing.set('| a |\n|---|\n| 1 |\n| 2 |\n', false);
  pass(300);
  growing.set('| a |\n|---|\n| 1 |\n| 2 |\n| 3 |\n', false);
  expect(root.querySelectorAll('td').length).toBe(1);
  pass(100);
  expect(root.querySelectorAll('td').length).toBe(3);
});

test('the end is drawn at once, and nothing after it', () => {
  const { root, growing, pass } = drawn(100);
  growing.set('one', false);
  growing.set('one two', false);
  growing.set('one two three', true);
  expect(root.textContent).toBe('one two three\n');
  const [{ firstChild: kept }] = root.querySelectorAll('p');
  pass(1000);
  expect(root.querySelector('p')?.firstChild).toBe(kept);
});

test('what is quick is drawn each time', () => {
  const { root, growing } = drawn(2);
  for (const text of ['one', 'one two', 'one two three']) {
    growing.set(text, false);
    expect(root.textContent?.trim()).toBe(text);
  }
});
