import { afterEach, expect, test } from 'vitest';
import { opened, turn } from './page.js';

afterEach(() => document.body.replaceChildren());

const worker = { name: 'w', state: 'ready', model: 'demo', batch: 4, running: 1, rate: 12 };
const asked = () => opened(
  { answering: 't2', live: { tokens: 7 }, worker },
  { t1: turn('user', 'Why?'), t2: turn('assistant', 'Because', { state: 'running' }) },
);

test('how an answer ended is what is read out', () => {
  for (const [state, words] of Object.entries({
    done: 'The answer is complete.', stopped: 'The answer was stopped.', failed: 'The answer broke off.',
  })) {
    const { view, say } = asked();
    say({ answering: null }, { change: { t2: { state } } });
    expect(view.news.textContent).toBe(words);
  }
});

test('of an answer that was taken back nothing is read out', () => {
  const { view, say } = asked();
  say({ answering: null, path: [] }, { gone: ['t1', 't2'] });
  expect(view.news.textContent).toBe('');
});

test('without a kernel nothing seems to be written or to run', () => {
  const { view, store, find, button } = asked();
  store.link(false);
  expect(find('.llmk-running')).toBeNull();
  expect(find('.llmk-assistant .llmk-facts').textContent).toBe('stopped7 tokens');
  expect(view.log.getAttribute('aria-busy')).toBe('false');
  expect(find('.llmk-dot-ready')).toBeNull();
  expect(button('Worker: w, unknown')).toBeDefined();
  expect(find('.llmk-worker-words').textContent).toBe('');
  expect(find('.llmk-stop')).toBeNull();
  expect(button('Regenerate').disabled).toBe(true);
});

test('a kernel that is there again has its answer still', () => {
  const { store, find } = asked();
  store.link(false);
  store.link(true);
  expect(find('.llmk-running')).not.toBeNull();
  expect(find('.llmk-dot-ready')).not.toBeNull();
  expect(find('.llmk-stop')).not.toBeNull();
});
