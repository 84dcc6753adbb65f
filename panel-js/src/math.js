/**
 * `$…$`, `$$…$$`, `\(…\)` and `\[…\]` as MathML. A dollar sign that is money stays one: nothing
 * is mathematics that begins or ends with a blank, or has a digit right after it.
 */
import temml from 'temml';

/** Longer or more deeply nested sources are shown as they are: a typesetter calls itself. */
const LONGEST = 5000;
const DEEPEST = 100;

/** @param {string} source @param {boolean} display */
export function mathml(source, display) {
  try {
    if (source.length > LONGEST || depth(source) > DEEPEST) throw new RangeError('too much');
    return temml.renderToString(source, {
      displayMode: display,
      trust: false,
      maxExpand: 200,
      maxSize: [20, 20],
      throwOnError: true,
      annotate: false,
    });
  } catch { // what it does not know, or cannot take: as it was written, not as an error
    const sign = display ? '$$' : '$';
    return `<code>${escape(`${sign}${source}${sign}`)}</code>`;
  }
}

/** How many braces are open at most. @param {string} source */
function depth(source) {
  let open = 0;
  let most = 0;
  for (const sign of source) {
    if (sign === '{') open += 1;
    else if (sign === '}') open -= 1;
    most = Math.max(most, open);
  }
  return most;
}

/** @param {string} text */
function escape(text) {
  return text.replace(/[&<>"]/g, (sign) => `&#${sign.charCodeAt(0)};`);
}

/** @param {any} parser a markdown-it */
export function mathematics(parser) {
  parser.inline.ruler.before('escape', 'math', inline);
  parser.block.ruler.before('fence', 'math_block', block, {
    alt: ['paragraph', 'reference', 'blockquote', 'list'],
  });
  parser.renderer.rules.math = (/** @type {any} */ tokens, /** @type {number} */ index) => mathml(tokens[index].content, false);
  parser.renderer.rules.math_block = (/** @type {any} */ tokens, /** @type {number} */ index) =>
    `<span class="llmk-math">${mathml(tokens[index].content, true)}</span>`;
}

/** @param {string} text @param {number} at where the opening sign is */
function find(text, at) {
  const pairs = [
    ['$$', '$$'],
    ['\\[', '\\]'],
    ['\\(', '\\)'],
    ['$', '$'],
  ];
  for (const [open, close] of pairs) {
    if (!text.startsWith(open, at)) continue;
    const begin = at + open.length;
    let end = text.indexOf(close, begin);
    while (open === '$' && end > 0 && text[end - 1] === '\\') end = text.indexOf(close, end + 1);
    if (end < 0) return null;
    const content = text.slice(begin, end);
    if (!content.trim() || content.includes('\n\n')) return null;
    if (open === '$' && (/^\s|\s$/.test(content) || /\d/.test(text[end + 1] ?? ''))) return null;
    return { content, end: end + close.length, display: open === '$$' || open === '\\[' };
  }
  return null;
}

function inline(/** @type {any} */ state, /** @type {boolean} */ silent) {
  const sign = state.src[state.pos];
  if (sign !== '$' && sign !== '\\') return false;
  const found = find(state.src, state.pos);
  if (!found) return false;
  if (!silent) state.push(found.display ? 'math_block' : 'math', '', 0).content = found.content;
  state.pos = found.end;
  return true;
}

/** A display that stands by itself, over several lines. */
function block(
  /** @type {any} */ state,
  /** @type {number} */ start,
  /** @type {number} */ end,
  /** @type {boolean} */ silent,
) {
  const from = state.bMarks[start] + state.tShift[start];
  const open = state.src.slice(from, from + 2);
  if (open !== '$$' && open !== '\\[') return false;
  const close = open === '$$' ? '$$' : '\\]';
  let line = start;
  let text = state.src.slice(from + 2, state.eMarks[start]);
  while (!text.trimEnd().endsWith(close)) {
    line += 1;
    if (line >= end || state.sCount[line] < state.blkIndent) return false;
    text += `\n${state.src.slice(state.bMarks[line] + state.tShift[line], state.eMarks[line])}`;
  }
  const content = text.trimEnd().slice(0, -2);
  if (!content.trim() || content.includes(close)) return false;
  if (silent) return true;
  const token = state.push('math_block', '', 0);
  token.content = content;
  token.block = true;
  token.map = [start, line + 1];
  state.line = line + 1;
  return true;
}
