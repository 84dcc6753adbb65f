/** The way between a store and the kernel, over the model of a front end. */
import { Store } from './store.js';

/** @typedef {import('./host.js').Host} Host */

/** @param {any} model @param {Host} host */
export function connect(model, host) {
  const store = new Store((message) => model.send(message));
  model.on('msg:custom', (/** @type {any} */ message) => store.receive(message));
  const look = async () => store.link(Boolean((await host.model())?.comm_live));
  model.on('comm_live_update', look);
  host.whenGone(() => store.link(false));
  store.receive(model.get('whole'));
  if (store.n < 0) store.sync();
  return store;
}

/** What a store hears of the model that it was connected to last. @type {WeakMap<Store, () => void>} */
const heard = new WeakMap();

/**
 * Go on after the kernel has lost the panel: with the same one where it is there, else with one
 * that is made again from what this page knows.
 * @param {Store} store
 * @param {Host} host
 */
export async function reconnect(store, host) {
  const model = await host.revive(store);
  store.send = (message) => model.send(message);
  store.n = -1;
  store.held.clear();
  store.asking = false;
  heard.get(store)?.(); // pressed twice, the model is the same one
  heard.set(store, follow(store, model));
  store.link(true);
  store.receive(model.get('whole'));
  store.sync();
}

/** @param {Store} store @param {any} model @returns {() => void} takes it back */
function follow(store, model) {
  const take = (/** @type {any} */ message) => store.receive(message);
  const look = () => store.link(Boolean(model.comm_live));
  model.on('msg:custom', take);
  model.on('comm_live_update', look);
  return () => {
    model.off('msg:custom', take);
    model.off('comm_live_update', look);
  };
}
