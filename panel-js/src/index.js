/** The panel as an anywidget: one store for the page, any number of views. */
import { Host } from './host.js';
import { connect } from './link.js';
import { mount } from './view.js';

export default () => {
  /** @type {import('./store.js').Store} */
  let store;
  /** @type {Host} */
  let host;
  return {
    /** @param {{model: any}} given */
    initialize({ model }) {
      host = new Host(model);
      store = connect(model, host);
    },
    /** @param {{el: HTMLElement}} given */
    render({ el }) {
      return mount(el, store, host);
    },
  };
};
