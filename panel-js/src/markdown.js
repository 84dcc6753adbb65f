/**
 * Markdown of a model as harmless elements: a parser that knows no HTML, then a sanitiser that
 * knows only what the parser makes. Nothing is loaded from anywhere: pictures become links.
 */
import DOMPurify from 'dompurify';
import MarkdownIt from 'markdown-it';
import { highlighted } from './highlight.js';
import { mathematics } from './math.js';

const SCHEMES = /^(?:https?:\/\/|mailto:)/i;
const HTML = `p br hr em strong s del code pre a span div ul ol li blockquote h1 h2 h3 h4 h5 h6
  table thead tbody tr th td`.split(/\s+/);
const MATHML = `math mrow mi mn mo ms mtext mspace msup msub msubsup mfrac msqrt mroot mover munder
  munderover mtable mtr mtd mstyle mpadded mphantom menclose mprescripts mmultiscripts none
  semantics merror`.split(/\s+/);
/** None of them is an address, and none moves anything up or down over other text. */
const ATTRIBUTES = `class start align dir display displaystyle scriptlevel mathvariant stretchy
  fence form separator lspace rspace minsize maxsize symmetric largeop movablelimits accent
  accentunder linethickness columnalign rowspacing columnspacing width notation columnspan
  rowspan`.split(/\s+/);

export const parser = new MarkdownIt({
  html: false,
  linkify: false,
  breaks: false,
  maxNesting: 60,
  highlight: highlighted,
});
parser.validateLink = (url) => SCHEMES.test(url.trim());
parser.renderer.rules.image = (tokens, index) => {
  const token = tokens[index];
  const escape = parser.utils.escapeHtml;
  const href = String(token.attrGet('src') ?? '');
  return `<a href="${escape(href)}">🖼 ${escape(token.content || href)}</a>`;
};
parser.core.ruler.push('sides', ({ tokens }) => {
  for (const token of tokens) {
    if (token.type.endsWith('_list_open')) token.attrSet('dir', 'auto');
    const side = /^text-align:(\w+)$/.exec(String(token.attrGet('style')))?.[1];
    if (side) token.attrs = [['align', side]]; // styles do not get through
  }
});
mathematics(parser);

// beyond its limit of nesting the parser leaves out what is there; here it is shown as it is
const blocks = parser.block.tokenize;
parser.block.tokenize = function tokenize(state, start, end) {
  if (state.level < parser.options.maxNesting) {
    blocks.call(this, state, start, end);
    return;
  }
  const token = state.push('code_block', '', 0);
  token.content = state.getLines(start, end, state.blkIndent, false);
  token.map = [start, end];
  state.line = end;
};

const purify = DOMPurify(window);
purify.addHook('afterSanitizeAttributes', (node) => {
  if (node.nodeName.toLowerCase() !== 'a') return;
  const href = node.getAttribute('href') ?? '';
  if (!SCHEMES.test(href)) node.removeAttribute('href');
  node.setAttribute('rel', 'noopener noreferrer');
  node.setAttribute('target', '_blank');
});

/** @param {string} html @returns {DocumentFragment} */
export function clean(html) {
  return purify.sanitize(html, {
    ALLOWED_TAGS: [...HTML, ...MATHML, '#text'],
    ALLOWED_ATTR: ['href', ...ATTRIBUTES],
    ADD_URI_SAFE_ATTR: ATTRIBUTES, // the expression below is for all others, whatever their name
    ALLOW_DATA_ATTR: false,
    ALLOW_ARIA_ATTR: false,
    ALLOWED_URI_REGEXP: SCHEMES,
    RETURN_DOM_FRAGMENT: true,
  });
}

/** @param {string} text @returns {DocumentFragment} */
export function render(text) {
  return clean(parser.render(text));
}
