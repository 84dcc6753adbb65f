/** A panel is as high as what is in it, up to a limit, and what is typed in stays in sight. */

/**
 * Keep the end of the log in sight while the panel changes its size, and the panel's lower edge,
 * with the box, where it was in sight before the panel grew.
 * @param {HTMLElement} root
 * @param {() => void} toEnd
 * @returns {() => void} takes it back
 */
export function followSize(root, toEnd) {
  let height = 0;
  let width = 0;
  const observer = new ResizeObserver(() => {
    const { bottom, height: now, width: wide } = root.getBoundingClientRect();
    const grown = now - height;
    if (grown || wide !== width) toEnd();
    // a height that a person has drawn is theirs
    if (height && grown > 0 && !root.style.height) {
      const end = visibleEnd(root);
      if (bottom > end && bottom - grown <= end + 1) root.scrollIntoView({ block: 'nearest' });
    }
    height = now;
    width = wide;
  });
  observer.observe(root);
  return () => observer.disconnect();
}

/** Where what can be seen of the page around ends. @param {HTMLElement} root */
function visibleEnd(root) {
  let end = window.innerHeight;
  for (let each = root.parentElement; each; each = each.parentElement) {
    if (/auto|scroll/.test(getComputedStyle(each).overflowY) && each.scrollHeight > each.clientHeight) {
      end = Math.min(end, each.getBoundingClientRect().bottom);
    }
  }
  return end;
}
