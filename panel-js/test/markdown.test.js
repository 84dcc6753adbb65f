import { describe, expect, test, vi } from 'vitest';
import { Growing } from '../src/growing.js';
import { parser, render } from '../src/markdown.js';

const html = (text) => {
  const box = document.createElement('div');
  box.append(render(text));
  return box;
};

describe('what is shown', () => {
  test('Markdown, code with colours, tables and mathematics', () => {
    const box = html('# T\n\n```python\nx = 1\n```\n\n| a |\n|--:|\n| 1 |\n\n$x^2$ and\n\n$$\\frac{1}{2}$$');
    expect(box.querySelector('h1').textContent).toBe('T');
    expect(box.querySelector('code.language-python .hljs-number').textContent).toBe('1');
    expect(box.querySelectorAll('math').length).toBe(2);
    expect(box.querySelector('mfrac')).not.toBeNull();
    expect(box.querySelectorAll('td').length).toBe(1);
  });

  test.each([
    ['It costs $5 or $6.', 0],
    ['the price$ is', 0],
    ['let $a$ be', 1],
    ['\\(a\\) and \\[b\\]', 2],
    ['`$a$`', 0],
    ['\\$a\\$', 0],
  ])('%s has %i formulas', (text, count) => {
    expect(html(text).querySelectorAll('math').length).toBe(count);
  });

  test.each([
    '<script>alert(1)</script>', '<img src=x onerror=alert(1)>', '[x](javascript:alert(1))',
    '[x](data:text/html,x)', '[x](/logout)', '![x](http://evil.example/x.png)',
    '$\\href{javascript:alert(1)}{x}$', '<svg onload=alert(1)>', '[x](vbscript:x)',
    '```x" onmouseover="alert(1)\na\n```',
  ])('%s does nothing', (text) => {
    const box = html(text);
    expect(box.querySelector('script, img, svg, iframe, style, form')).toBeNull();
    for (const element of box.querySelectorAll('*')) {
      for (const { name, value } of element.attributes) {
        expect(name).not.toMatch(/^on|^style$|^data-/);
        if (name === 'href') expect(value).toMatch(/^(https?:\/\/|mailto:)/);
      }
    }
  });

  test('links open elsewhere and say nothing of where they come from', () => {
    const link = html('[x](https://a.example)').querySelector('a');
    expect(link.getAttribute('rel')).toBe('noopener noreferrer');
    expect(link.getAttribute('target')).toBe('_blank');
  });
});

const TEXT = `# Title

A paragraph with **bold**, \`code\` and [a link][r].

- one
- two

  more of two

1. first

\`\`\`python
def f(x):

    return x
\`\`\`

> quoted
> on

| a | b |
|---|---|
| 1 | 2 |

$$
x^2
$$

Setext
======

[r]: https://a.example/path

The end.`;

describe('a text that grows', () => {
  const whole = () => {
    const box = document.createElement('div');
    new Growing(box).set(TEXT, true);
    return box.textContent.replace(/\s+/g, ' ');
  };

  test.each([1, 2, 3, 7, 50])('in steps of %i ends as if it had come at once', (step) => {
    const box = document.createElement('div');
    const growing = new Growing(box);
    for (let at = 0; at < TEXT.length; at += step) growing.set(TEXT.slice(0, at), false);
    growing.set(TEXT, true);
    expect(box.textContent.replace(/\s+/g, ' ')).toBe(whole());
    const at = document.createElement('div');
    at.append(render(TEXT));
    expect(box.querySelectorAll('li, td, math, pre, h1, blockquote, a').length).toBe(
      at.querySelectorAll('li, td, math, pre, h1, blockquote, a').length,
    );
    expect(box.querySelector('a').getAttribute('href')).toBe('https://a.example/path');
  });

  test('keeps the elements of finished blocks', () => {
    const box = document.createElement('div');
    const growing = new Growing(box);
    growing.set('# Title\n\nOne.\n\nTwo', false);
    const title = box.querySelector('h1');
    const [one] = box.querySelectorAll('p');
    for (const more of [' and', ' and more.', ' and more.\n\nThree']) growing.set(`# Title\n\nOne.\n\nTwo${more}`, false);
    expect(box.querySelector('h1')).toBe(title);
    expect(box.querySelectorAll('p')[0]).toBe(one);
    growing.set('# Title\n\nOne.\n\nTwo and more.\n\nThree', true);
    expect(box.querySelector('h1')).toBe(title);
  });

  test('parses only the tail', () => {
    const box = document.createElement('div');
    const growing = new Growing(box);
    const long = 'A paragraph.\n\n'.repeat(200);
    growing.set(long, false);
    growing.set(`${long}And`, false);
    expect(growing.kept).toBeGreaterThan(long.length - 20);
  });

  test('one that goes on after its end goes on inside its last block', () => {
    const box = document.createElement('div');
    const growing = new Growing(box);
    growing.set('One.\n\n17 + 2', true);
    growing.set('One.\n\n17 + 2', false);
    growing.set('One.\n\n17 + 25 =', false);
    growing.set('One.\n\n17 + 25 = 42', true);
    expect([...box.querySelectorAll('p')].map((one) => one.textContent)).toEqual(['One.', '17 + 25 = 42']);
  });

  test('a text that is another one begins anew', () => {
    const box = document.createElement('div');
    const growing = new Growing(box);
    growing.set('# One\n\ntwo\n\nthree', false);
    growing.set('other', false);
    expect(box.textContent.trim()).toBe('other');
  });
});

describe('a text that is too much for a parser', () => {
  const nested = (open, count, close) => `$${open.repeat(count)}x${close.repeat(count)}$`;

  test.each([
    ['braces that never close', `$${'{'.repeat(3000)}$`],
    ['deep braces', nested('\\sqrt{', 2000, '}')],
    ['deep without braces', `$$${'\\sqrt'.repeat(900)}$$`],
    ['a long source', `$${'x+'.repeat(20_000)}x$`],
  ])('is shown as it is: %s', (_, text) => {
    const root = document.createElement('div');
    const growing = new Growing(root);
    for (const finished of [false, true]) {
      growing.set(`Before ${text} after <b>`, finished);
      expect(root.textContent).toContain('Before ');
      expect(root.textContent).toContain('after <b>');
    }
    expect(root.querySelector('b')).toBe(null);
  });

  test.each([
    ['quotations', `${'>'.repeat(300)} the <b>end`],
    ['lists', Array.from({ length: 100 }, (_, i) => `${'  '.repeat(i)}- item`).join('\n') + ' the <b>end'],
  ])('nested beyond the limit is shown all the same: %s', (_, text) => {
    const root = document.createElement('div');
    const growing = new Growing(root);
    growing.set(text, false);
    expect(root.textContent).toContain('the <b>end');
    growing.set(text, true);
    expect(root.textContent).toContain('the <b>end');
    expect(root.querySelector('b')).toBe(null);
  });

  test('whatever fails, the words are there, and what comes after is shown again', () => {
    const root = document.createElement('div');
    const growing = new Growing(root);
    const broken = vi.spyOn(parser, 'parse').mockImplementation(() => {
      throw new RangeError('Maximum call stack size exceeded');
    });
    growing.set('**some** <b>words', false);
    expect(root.textContent).toBe('**some** <b>words');
    expect(root.querySelector('b')).toBe(null);
    broken.mockRestore();
    growing.set('**some** <b>words\n\nmore', true);
    expect(root.querySelector('strong').textContent).toBe('some');
    expect(root.textContent).toContain('more');
  });
});

test('mathematics that no typesetter knows is shown as it was written', () => {
  const shown = render('so $\\frac{1}{$ and $\\foo{x}$ and $x^2$');
  const words = document.createElement('div');
  words.append(shown);
  expect([...words.querySelectorAll('code')].map((each) => each.textContent)).toEqual([
    '$\\frac{1}{$', '$\\foo{x}$',
  ]);
  expect(words.querySelectorAll('math').length).toBe(1);
  expect(words.textContent).not.toContain('Error');
});

test('the columns of a table are aligned as their heads say', () => {
  const words = document.createElement('div');
  words.append(render('| a | b | c |\n|---|--:|:-:|\n| 1 | 2 | 3 |\n'));
  expect([...words.querySelectorAll('td')].map((each) => each.getAttribute('align'))).toEqual([
    null, 'right', 'center',
  ]);
});

test('a list goes on where it says, and mathematics is as large as it has to be', () => {
  const words = document.createElement('div');
  words.append(render('3. three\n4. four\n\n$$\\begin{pmatrix} a \\\\ b \\end{pmatrix} \\quad x$$\n'));
  expect(words.querySelector('ol')?.getAttribute('start')).toBe('3');
  expect(words.querySelector('math')?.getAttribute('display')).toBe('block');
  expect(words.querySelector('mo[fence]')).not.toBe(null);
  expect(words.querySelector('mspace')?.getAttribute('width')).toBe('1em');
});

test('a list stands on the side of its script', () => {
  const words = document.createElement('div');
  words.append(render('- \u05d0\n'));
  expect(words.querySelector('ul')?.getAttribute('dir')).toBe('auto');
});

test('mathematics has a limit to its sizes and moves nothing up or down', () => {
  const words = document.createElement('div');
  words.append(render('$\\rule{500em}{500em}$ $\\raise{90em}{x}$ $\\hspace{500em}$ $\\smash{x}$ $\\kern-500em x$'));
  const said = [...words.querySelectorAll('math *')].flatMap((each) => [...each.attributes]);
  expect(said.filter(({ name }) => /^(voffset|height|depth|style)$/.test(name))).toEqual([]);
  const widths = said.filter(({ name }) => name === 'width').map(({ value }) => Math.abs(parseFloat(value)));
  expect(Math.max(...widths)).toBe(20);
});
