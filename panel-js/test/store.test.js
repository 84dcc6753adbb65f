import { describe, expect, test } from 'vitest';
import { Store } from '../src/store.js';

/** A store with what it sent, and time that passes on command. */
function made() {
  const sent = [];
  const timers = [];
  const store = new Store((message) => sent.push(message), (action) => timers.push(action));
  const changes = [];
  store.listen((change) => changes.push(change));
  return { store, sent, changes, pass: () => timers.splice(0).forEach((action) => action()) };
}

const turn = (text = '') => ({ role: 'assistant', text, state: 'running', place: 1, branches: 1 });
const whole = (n, text = '') => ({ n, whole: { name: 'a', path: ['t'] }, turns: { t: turn(text) } });

describe('numbered messages', () => {
  test('are applied in order', () => {
    const { store } = made();
    store.receive(whole(4));
    store.receive({ n: 5, turn: 't', add: 'he' });
    store.receive({ n: 6, turn: 't', add: 'llo' });
    store.receive({ n: 7, set: { name: 'b' }, turns: { u: turn('x') } });
    expect(store.turns.get('t').text).toBe('hello');
    expect(store.state.name).toBe('b');
    expect([...store.turns.keys()]).toEqual(['t', 'u']);
  });

  test('that come twice count once', () => {
    const { store } = made();
    store.receive(whole(0));
    store.receive({ n: 1, turn: 't', add: 'a' });
    store.receive({ n: 1, turn: 't', add: 'a' });
    expect(store.turns.get('t').text).toBe('a');
  });

  test('after a gap wait for everything, which is asked for once', () => {
    const { store, sent } = made();
    store.receive(whole(0));
    store.receive({ n: 3, turn: 't', add: 'c' });
    store.receive({ n: 4, turn: 't', add: 'd' });
    expect(store.turns.get('t').text).toBe('');
    expect(sent).toEqual([{ do: 'sync' }]);
    store.receive(whole(2, 'ab'));
    expect(store.turns.get('t').text).toBe('abcd');
    expect(store.n).toBe(4);
    expect(store.held.size).toBe(0);
  });

  test('are the same for every store of a page: none writes into what all are given', () => {
    const stores = [made().store, made().store];
    const first = { n: 1, set: { path: ['t', 'u'] }, turns: { u: turn() } };
    for (const message of [whole(0), first, { n: 2, turn: 'u', add: 'Once ' }, { n: 3, turn: 't', add: 'a' }]) {
      for (const store of stores) store.receive(message);
    }
    for (const store of stores) {
      expect(store.turns.get('u').text).toBe('Once ');
      expect(store.turns.get('t').text).toBe('a');
    }
  });

  test('that were only late close the gap by themselves', () => {
    const { store } = made();
    store.receive(whole(0));
    store.receive({ n: 2, turn: 't', add: 'b' });
    store.receive({ n: 1, turn: 't', add: 'a' });
    expect(store.turns.get('t').text).toBe('ab');
  });

  test('before the first whole are kept', () => {
    const { store, sent } = made();
    store.receive({ n: 6, turn: 't', add: 'f' });
    expect(sent).toEqual([{ do: 'sync' }]);
    store.receive(whole(5, 'abcde'));
    expect(store.turns.get('t').text).toBe('abcdef');
  });

  test('an answer that is lost too is asked for again', () => {
    const { store, sent, pass } = made();
    store.receive(whole(0));
    store.receive({ n: 2, turn: 't', add: 'b' });
    pass();
    expect(sent.length).toBe(2);
    store.receive(whole(2, 'ab'));
    pass();
    expect(sent.length).toBe(2);
  });

  test('an old whole does not take back what is newer', () => {
    const { store } = made();
    store.receive(whole(0));
    store.receive({ n: 1, turn: 't', add: 'a' });
    store.receive(whole(0));
    expect(store.turns.get('t').text).toBe('a');
  });

  test('any order and any loss ends in the same state', () => {
    const messages = [...'abcdefghij'].map((add, at) => ({ n: at + 1, turn: 't', add }));
    for (let seed = 1; seed < 200; seed += 1) {
      const { store, sent } = made();
      store.receive(whole(0));
      const shuffled = [...messages].sort((a, b) => ((a.n * seed) % 11) - ((b.n * seed) % 11));
      shuffled.filter((message) => (message.n * seed) % 7 !== 3).forEach((m) => store.receive(m));
      if (store.n < 10) store.receive(whole(10, 'abcdefghij'));
      expect(store.turns.get('t').text).toBe('abcdefghij');
      expect(sent.length).toBeLessThan(2);
    }
  });
});

describe('changes', () => {
  test('say what they are about', () => {
    const { store, changes } = made();
    store.receive(whole(0));
    store.receive({ n: 1, turn: 't', add: 'a' });
    store.receive({ n: 2, set: { draft: {} }, gone: ['t'] });
    store.receive({ names: [] });
    store.link(false);
    store.link(false);
    expect(changes.map((change) => change.kind)).toEqual(['state', 'text', 'state', 'told', 'link']);
    expect([...changes[2].keys]).toEqual(['draft', 'turns']);
    expect(store.turns.size).toBe(0);
  });

  test('of turns that are not there are ignored', () => {
    const { store } = made();
    store.receive(whole(0));
    store.receive({ n: 1, turn: 'gone', add: 'a' });
    expect(store.n).toBe(1);
  });

  test('nonsense is ignored', () => {
    const { store } = made();
    for (const message of [null, undefined, 'text', 3, []]) store.receive(message);
    expect(store.n).toBe(-1);
  });
});
