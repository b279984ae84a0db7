/** Elements. Text enters the document as text nodes only, so nothing that a model or a visitor writes is read as HTML. */

/**
 * Returns an element. Attributes named `on…` are listeners; null leaves an attribute out, and so does false, except for `aria-…`.
 * @param {string} tag
 * @param {Record<string, any>} [attributes]
 * @param {...(Node|string|null|undefined|false)} children
 */
export function el(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith('on')) node.addEventListener(name.slice(2), value);
    else if (name.startsWith('aria-') && value != null) node.setAttribute(name, value);
    else if (value != null && value !== false) node.setAttribute(name, value === true ? '' : value);
  }
  node.append(...children.filter(child => child != null && child !== false));
  return node;
}

/** Returns an icon, a path in a square of 24, that screen readers pass over. @param {string} path */
export function icon(path) {
  const space = 'http://www.w3.org/2000/svg';
  const svg = document.createElementNS(space, 'svg'), line = document.createElementNS(space, 'path');
  for (const [name, value] of Object.entries({ viewBox: '0 0 24 24', width: 22, height: 22, 'aria-hidden': 'true', class: 'icon' })) svg.setAttribute(name, value);
  line.setAttribute('d', path);
  svg.append(line);
  return svg;
}

export const ICONS = {
  chat: 'M4 5h16v11H9l-5 4z', close: 'M6 6l12 12M18 6L6 18', send: 'M4 12h15M13 6l6 6-6 6', stop: 'M7 7h10v10H7z',
  attach: 'M8 12l6-6a3 3 0 014 4l-8 8a5 5 0 01-7-7l8-8', plus: 'M12 5v14M5 12h14', down: 'M6 10l6 6 6-6', list: 'M5 7h14M5 12h14M5 17h9',
};

const SAFE_SCHEMES = ['http:', 'https:', 'mailto:'];

/** Returns a link, or plain text where the address is not one of the web or of mail. */
export function link(label, address) {
  let url = null;
  try { url = new URL(address); } catch { /* a relative address would lead into the host page */ }
  if (!url || !SAFE_SCHEMES.includes(url.protocol)) return el('span', {}, label);
  return el('a', { href: url.href, target: '_blank', rel: 'noopener noreferrer nofollow' }, label);
}

/** Returns a new id. `crypto.randomUUID` is missing on pages without TLS. */
export const newId = () => [...crypto.getRandomValues(new Uint8Array(16))].map(byte => byte.toString(16).padStart(2, '0')).join('');
