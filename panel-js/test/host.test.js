import { expect, test } from 'vitest';
import { Host, remembered } from '../src/host.js';
import { connect } from '../src/link.js';
import { Store } from '../src/store.js';

const turn = (role, text, parent, shown = true, more = {}) => ({
  role, text, state: 'done', place: 1, branches: 1, parent, shown, ...more,
});

test('an answer that the kernel left behind is remembered as stopped, with its figures', () => {
  const store = new Store(() => {});
  store.receive({
    n: 0,
    whole: { name: 'One', path: ['c1t1'], conversations: [{ name: 'One', prefix: 'c1t' }],
      answering: 'c1t1', live: { tokens: 7, first: 0.1 } },
    turns: { c1t1: turn('assistant', 'half', null, true, { state: 'running' }) },
  });
  const [{ state, facts }] = remembered(store).talks[0].turns;
  expect({ state, facts }).toEqual({ state: 'stopped', facts: { tokens: 7, first: 0.1 } });
});

test('a page remembers every branch of every conversation', () => {
  const store = new Store(() => {});
  const chip = { name: 'df', kind: 'csv', note: '1 row', tokens: 3, text: 'a' };
  store.receive({
    n: 3,
    whole: {
      name: 'Two', path: ['c11t1'], system: 'Be brief.', draft: { text: 'typed', by: 'x' }, pending: [],
      conversations: [{ name: 'One', prefix: 'c1t' }, { name: 'Two', prefix: 'c11t' }],
      aside: { One: { system: 'S', draft: 'later', pending: [chip] } },
      worker: { name: 'demo' }, values: { temperature: 0, top_p: null }, further: { typical_p: 0.9 },
    },
    turns: {
      c1t10: turn('assistant', 'second', 'c1t2'),
      c1t2: turn('user', 'q', null, true, { attachments: [chip] }),
      c1t9: turn('assistant', 'first', 'c1t2', false, { facts: { tokens: 3 } }),
      c11t1: turn('user', 'here', null),
    },
  });
  store.receive({ n: 4, change: { c11t1: { state: 'stopped', facts: null } } });
  const { talks, ...rest } = remembered(store);
  expect(rest).toEqual({
    current: 'Two', worker: 'demo', values: { temperature: 0, typical_p: 0.9 },
  });
  expect(talks.map(({ name, system, draft }) => [name, system, draft])).toEqual([
    ['One', 'S', 'later'], ['Two', 'Be brief.', 'typed'],
  ]);
  expect(talks[0].pending).toEqual([chip]);
  expect(talks[0].turns.map(({ text, parent, shown }) => [text, parent, shown])).toEqual([
    ['q', null, true], ['first', 0, false], ['second', 0, true],
  ]);
  expect(talks[0].turns[0].attachments).toEqual([chip]);
  expect(talks[0].turns[1].facts).toEqual({ tokens: 3 });
  expect(talks[1].turns).toEqual([
    { role: 'user', text: 'here', state: 'stopped', parent: null, shown: true,
      attachments: [], facts: {}, problem: '', edited: false },
  ]);
});

/** A notebook with a kernel, as JupyterLab's manager of widgets has it. */
function notebook() {
  const listeners = [];
  const sessionContext = {
    session: { kernel: { id: 'k1' } },
    kernelChanged: { connect: (listener) => listeners.push(listener) },
    /** @param {string | null} id */
    change(id) {
      const oldValue = this.session?.kernel ?? null;
      const newValue = id && { id };
      this.session = newValue && { kernel: newValue };
      listeners.forEach((listener) => listener(this, { name: 'kernel', oldValue, newValue }));
    },
  };
  const model = { get: () => undefined, on() {}, send() {}, widget_manager: { context: { sessionContext } } };
  const host = new Host(model);
  return { sessionContext, host, store: connect(model, host) };
}

test('a kernel that is shut down has gone, and Reconnect says that one has to be started', async () => {
  const { sessionContext, host, store } = notebook();
  sessionContext.change('k1'); // a new connection to the same one
  expect(store.alive).toBe(true);
  sessionContext.change(null);
  expect(store.alive).toBe(false);
  await expect(host.revive(store)).rejects.toThrow('No kernel runs: start one, then Reconnect.');
});

test('a panel goes with its kernel when another one is chosen', () => {
  const { sessionContext, store } = notebook();
  sessionContext.change('k2');
  expect(store.alive).toBe(false);
});
