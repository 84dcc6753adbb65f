/** The keyboard stays where it is while what it is on is drawn anew. */

/** What takes the place of a button that is not there any more. @type {Record<string, string>} */
const NEXT = {
  'Branch before': 'Branch after', 'Branch after': 'Branch before',
  'Edit: user': 'Edit', 'Edit: assistant': 'Edit', Cancel: 'Edit', Save: 'Edit', 'Save only': 'Edit',
};

/**
 * Draw, and where that took away what had the focus, give it to the button of the same name in the
 * same place, else to `otherwise`: without it every key would begin at the top of the page.
 * @param {HTMLElement} root @param {() => void} draw @param {HTMLElement} otherwise
 */
export function keepFocus(root, draw, otherwise) {
  const page = /** @type {Document | ShadowRoot} */ (root.getRootNode());
  const focused = page.activeElement;
  if (!focused || focused === root || !root.contains(focused)) {
    draw();
    return;
  }
  const row = [...root.children].findIndex((each) => each.contains(focused));
  const name = nameOf(focused);
  draw();
  if (page.activeElement && page.activeElement !== document.body) return;
  const buttons = [...(root.children[row]?.querySelectorAll('button') ?? [])].filter((each) => !each.disabled);
  const found = [name, NEXT[name]].map((wanted) => buttons.find((each) => nameOf(each) === wanted));
  (found.find(Boolean) ?? otherwise).focus({ preventScroll: true });
}

/** @param {Element} element */
function nameOf(element) {
  return element.getAttribute('aria-label') ?? element.textContent ?? '';
}
