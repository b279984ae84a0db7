/**
 * Markdown as models write it, into elements: headings, paragraphs, nested lists, quotes, tables, fences, rules, and inline marks.
 *
 * A text that still grows is cut into blocks, and only changed blocks are made anew, so that nothing flickers and a
 * selection in an earlier paragraph stays. All patterns are bounded: no text makes matching run away.
 */
import { el, link } from './dom.js';

const MAX_DEPTH = 6;
const FENCE = /^ {0,3}(```|~~~)/, HEADING = /^ {0,3}(#{1,6})\s+(.{0,2000}?)\s*#*$/, RULE = /^ {0,3}([-*_])( ?\1){2,80}\s*$/;
const ITEM = /^( {0,40})([-*+•]|\d{1,9}[.)])\s+(.*)/, QUOTE = /^ {0,3}> ?/, ROW = /^\s*\|.*\|\s*$/, DIVIDER = /^\s*\|(\s*:?-{1,50}:?\s*\|){1,50}\s*$/;
const INLINE = new RegExp([
  '`([^`\\n]{1,1000})`', '\\*\\*(?=\\S)(.{1,1000}?)\\*\\*', '~~(?=\\S)(.{1,1000}?)~~', '(?<![\\w*])[*_](?=\\S)([^*_\\n]{1,1000}?)(?<=\\S)[*_](?![\\w*])',
  '\\[([^\\]\\n]{1,300})\\]\\(((?:https?://|mailto:)[^\\s)]{1,2000})\\)', '(https?://[^\\s<>"\'`*)\\]]{1,2000})',
].join('|'), 'g');

/** Writes a text with marks into a parent, and returns the parent. */
function inline(parent, text, depth = 0) {
  let at = 0;
  for (const match of depth > MAX_DEPTH ? [] : text.matchAll(INLINE)) {
    const [whole, code, bold, struck, slanted, label, address] = match, bare = match[7]?.replace(/[.,;:!?]+$/, '');
    parent.append(text.slice(at, match.index));
    at = match.index + (bare ?? whole).length;
    if (code) parent.append(el('code', { dir: 'ltr' }, code));
    else if (bold) parent.append(inline(el('strong'), bold, depth + 1));
    else if (struck) parent.append(inline(el('s'), struck, depth + 1));
    else if (slanted) parent.append(inline(el('em'), slanted, depth + 1));
    else parent.append(link(label ?? bare, address ?? bare));
  }
  parent.append(text.slice(at));
  return parent;
}

/** Returns where the block that begins at a line ends. */
function endOfBlock(lines, start) {
  const first = lines[start], whileTrue = test => {
    let end = start + 1;
    while (end < lines.length && test(lines[end], end)) end++;
    return end;
  };
  const fence = FENCE.exec(first);
  if (fence) {
    const close = lines.findIndex((line, at) => at > start && line.trim().startsWith(fence[1]));
    return close < 0 ? lines.length : close + 1;
  }
  if (HEADING.test(first) || RULE.test(first)) return start + 1;
  if (QUOTE.test(first)) return whileTrue(line => QUOTE.test(line));
  if (ROW.test(first)) return whileTrue(line => ROW.test(line));
  if (ITEM.test(first)) {
    const [, indent, mark] = ITEM.exec(first), isNumbered = text => /^\d/.test(text);
    const isNext = line => {
      const item = ITEM.exec(line);
      // Another kind of mark on the same level begins another list.
      return item ? item[1].length > indent.length + 1 || isNumbered(item[2]) === isNumbered(mark) : /^ {2,}\S/.test(line);
    };
    return whileTrue((line, at) => isNext(line) || (line.trim() === '' ? at + 1 < lines.length && isNext(lines[at + 1]) : !isStart(line) && lines[at - 1].trim() !== ''));
  }
  return whileTrue(line => line.trim() !== '' && !isStart(line));
}
const isStart = line => [FENCE, HEADING, RULE, QUOTE, ROW, ITEM].some(pattern => pattern.test(line));

/** Returns the sources of a text's blocks. @param {string} text */
export function blocks(text) {
  const lines = text.split('\n'), found = [];
  for (let at = 0; at < lines.length;) {
    if (lines[at].trim() === '') { at++; continue; }
    const end = endOfBlock(lines, at);
    found.push(lines.slice(at, end).join('\n'));
    at = end;
  }
  return found;
}

/** Returns the element of one block. */
function render(source, labels, depth) {
  const lines = source.split('\n'), first = lines[0];
  const inner = text => depth >= MAX_DEPTH ? [el('p', {}, text)] : blocks(text).map(block => render(block, labels, depth + 1));
  const heading = HEADING.exec(first);
  if (FENCE.test(first)) return fenced(lines, labels);
  if (heading) return inline(el(`h${Math.min(6, heading[1].length + 2)}`, { dir: 'auto' }), heading[2]);
  if (RULE.test(first)) return el('hr');
  if (QUOTE.test(first)) return el('blockquote', { dir: 'auto' }, ...inner(lines.map(line => line.replace(QUOTE, '')).join('\n')));
  if (ROW.test(first) && DIVIDER.test(lines[1] ?? '')) return table(lines);
  if (ITEM.test(first)) return list(lines, inner);
  return inline(el('p', { dir: 'auto' }), source);
}

function fenced(lines, labels) {
  const mark = FENCE.exec(lines[0])[1], last = lines.length > 1 && lines.at(-1).trim().startsWith(mark) ? -1 : undefined;
  const code = lines.slice(1, last).join('\n');
  const copy = el('button', { type: 'button', class: 'copy', async onclick() {
    try { await navigator.clipboard.writeText(code); copy.textContent = labels.copied; } catch { copy.textContent = labels.copyFailed; }
  } }, labels.copy);
  return el('div', { class: 'code', dir: 'ltr' }, copy, el('pre', { tabindex: 0 }, el('code', {}, code)));
}

function table(lines) {
  const cells = line => line.trim().slice(1, -1).split(/(?<!\\)\|/).map(cell => cell.trim().replaceAll('\\|', '|'));
  const row = (line, tag) => el('tr', {}, ...cells(line).map(cell => inline(el(tag, { dir: 'auto', scope: tag === 'th' && 'col' }), cell)));
  return el('div', { class: 'table', tabindex: 0 }, el('table', {},
    el('thead', {}, row(lines[0], 'th')), el('tbody', {}, ...lines.slice(2).map(line => row(line, 'td')))));
}

function list(lines, inner) {
  const [, indent, mark] = ITEM.exec(lines[0]), number = /^\d+/.exec(mark)?.[0];
  const root = el(number ? 'ol' : 'ul', { start: number, dir: 'auto' });
  let item = [];
  const flush = () => {
    if (!item.length) return;
    const [only, ...more] = inner(item.join('\n'));
    root.append(el('li', {}, ...(only?.tagName === 'P' ? only.childNodes : [only]), ...more));
  };
  for (const line of lines) {
    const found = ITEM.exec(line);
    if (found && found[1].length <= indent.length + 1) {
      flush();
      item = [found[3]];
    } else item.push(line.replace(/^ {1,4}/, ''));
  }
  flush();
  return root;
}

/** A text that grows, as elements of a parent. */
export class Markdown {
  /** @param {HTMLElement} parent @param {{copy: string, copied: string, copyFailed: string}} labels */
  constructor(parent, labels) {
    Object.assign(this, { parent, labels, shown: [] });
  }

  /** Shows a text in place of the one before. */
  show(text) {
    const sources = blocks(text);
    let same = 0;
    while (same < sources.length && this.shown[same] === sources[same]) same++;
    while (this.parent.childNodes.length > same) this.parent.lastChild.remove();
    this.parent.append(...sources.slice(same).map(source => render(source, this.labels, 0)));
    this.shown = sources;
  }
}
