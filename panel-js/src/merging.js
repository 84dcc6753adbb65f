/** Two people in one box: what both have typed stays. */

/**
 * A text that became `mine` here and `theirs` elsewhere, with both changes. Where they touch the same
 * words, what was written here stands behind what was written there.
 * @param {string} before @param {string} mine @param {string} theirs @returns {string}
 */
export function merged(before, mine, theirs) {
  if (mine === theirs) return mine;
  const here = change(before, mine);
  const there = change(before, theirs);
  if (here.until <= there.start && here.start < there.start) {
    return theirs.slice(0, here.start) + here.text + theirs.slice(here.until);
  }
  const shift = theirs.length - before.length;
  const from = Math.max(here.start, there.until) + shift;
  return theirs.slice(0, from) + here.text + theirs.slice(Math.max(from, here.until + shift));
}

/** What of a text is another: from `start` to `until` there is `text` now. @param {string} before @param {string} after */
export function change(before, after) {
  const most = Math.min(before.length, after.length);
  let start = 0;
  while (start < most && before[start] === after[start]) start += 1;
  let same = 0;
  while (same < most - start && before.at(-1 - same) === after.at(-1 - same)) same += 1;
  return { start, until: before.length - same, text: after.slice(start, after.length - same) };
}
