/** Colours for code, of the languages that a notebook meets. */
import hljs from 'highlight.js/lib/core';
import bash from 'highlight.js/lib/languages/bash';
import c from 'highlight.js/lib/languages/c';
import css from 'highlight.js/lib/languages/css';
import diff from 'highlight.js/lib/languages/diff';
import javascript from 'highlight.js/lib/languages/javascript';
import json from 'highlight.js/lib/languages/json';
import julia from 'highlight.js/lib/languages/julia';
import markdown from 'highlight.js/lib/languages/markdown';
import python from 'highlight.js/lib/languages/python';
import r from 'highlight.js/lib/languages/r';
import rust from 'highlight.js/lib/languages/rust';
import sql from 'highlight.js/lib/languages/sql';
import xml from 'highlight.js/lib/languages/xml';
import yaml from 'highlight.js/lib/languages/yaml';

const LANGUAGES = {
  bash, c, css, diff, javascript, json, julia, markdown, python, r, rust, sql, xml, yaml,
};
for (const [name, language] of Object.entries(LANGUAGES)) hljs.registerLanguage(name, language);
hljs.registerAliases(['ipython', 'ipython3', 'pycon'], { languageName: 'python' });
hljs.registerAliases(['cpp', 'c++', 'java', 'cuda'], { languageName: 'c' });

/** Longer code is shown without colours: it would take longer than a frame. */
const MOST = 30_000;

/** @param {string} code @param {string} language @returns {string} HTML, or "" for none */
export function highlighted(code, language) {
  if (!language || code.length > MOST || !hljs.getLanguage(language)) return '';
  return hljs.highlight(code, { language, ignoreIllegals: true }).value;
}
