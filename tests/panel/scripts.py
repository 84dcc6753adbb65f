"""What is run in the page itself."""

from __future__ import annotations

CLICK_STOP = """(root) => new Promise(resolve => {
    const began = performance.now();
    const over = () => !root.querySelector('.llmk-running') && root.querySelector('.llmk-stopped');
    const observer = new MutationObserver(() => {
      if (over()) { observer.disconnect(); resolve(performance.now() - began); }
    });
    observer.observe(root, { subtree: true, childList: true, attributes: true });
    root.querySelector('.llmk-stop').click();
})"""

VIOLATIONS = """async () => {
  document.body.style.minHeight = '100vh';  // it has none there, and axe takes all for hidden
  const result = await window.axe.run(document.querySelector('.llmk'), { resultTypes: ['violations'] });
  return result.violations.map(one => [one.id, one.nodes.map(node => node.html.slice(0, 200))]);
}"""

TOO_WIDE = """(root) => [...root.querySelectorAll('*')].filter(element =>
      element.getClientRects().length && !element.closest('.llmk-hidden, pre, .llmk-table, math') &&
      element.getBoundingClientRect().right > root.getBoundingClientRect().right + 1)
      .map(element => element.className)"""
"""What reaches beyond the panel's right edge."""
