/** Bundles the panel into the one file that the Python package ships. */
import { readFileSync, statSync } from 'node:fs';
import { build } from 'esbuild';

const target = new URL('../llmkernel/notebook/panel/static/panel.js', import.meta.url).pathname;
const MOST = 500_000;

await build({
  entryPoints: ['src/index.js'],
  outfile: process.argv[2] ?? target,
  bundle: true,
  format: 'esm',
  minify: true,
  charset: 'utf8',
  target: ['es2022', 'chrome110', 'firefox115', 'safari16'],
  loader: { '.css': 'text' },
  legalComments: 'none',
  banner: { js: `/* llmkernel's chat panel; made by \`npm run build\` in panel-js. Licences: LICENSES.txt beside it */` },
});
const bytes = statSync(process.argv[2] ?? target).size;
console.log(`panel.js: ${bytes.toLocaleString('en')} bytes`);
if (bytes > MOST) {
  console.error(`It may have ${MOST.toLocaleString('en')}.`);
  process.exit(1);
}
const text = readFileSync(process.argv[2] ?? target, 'utf8');
if (/\bimport\s*\(\s*["'`]https?:/.test(text)) {
  console.error('It would load code from elsewhere.');
  process.exit(1);
}
