/** Cards: a turn waits for the visitor's approval, form, choice or code. */
import { el, newId } from './dom.js';

/**
 * The frame of all cards. `settle` ends it with a sentence; `busy` is set while the server decides.
 * @param {{say: Function}} strings
 */
function card(title, text, strings, ...children) {
  const heading = el('h3', { id: `h${newId()}` }, title), problem = el('div', { class: 'error', role: 'alert' });
  const body = el('fieldset', {}, ...children);
  const root = el('section', { class: 'card', part: 'card', tabindex: -1, role: 'group', 'aria-labelledby': heading.id },
    heading, text && el('p', { dir: 'auto' }, text), problem, body);
  return {
    root,
    waits: true,
    busy(value) { body.disabled = value; if (value) { problem.textContent = ''; root.focus(); } },
    problem(words) { body.disabled = false; problem.textContent = words; },
    settle(words) {
      this.waits = false;
      heading.textContent = words;
      problem.remove();
      body.remove();
      root.classList.add('settled');
    },
  };
}

/** A button of a card. */
const choice = (label, onclick, primary) => el('button', { type: 'button', class: primary && 'primary', onclick }, label);

/** Approval of a tool call; `decide(approved)` sends the decision. */
export function approval({ actionDescription, toolId }, strings, decide) {
  const { say } = strings;
  const shown = card(say('approval'), actionDescription || toolId, strings, el('div', { class: 'chips' },
    choice(say('approve'), () => { shown.busy(true); decide(true); }, true), choice(say('reject'), () => { shown.busy(true); decide(false); })));
  return shown;
}

/** A form with its fields; `submit(values)` or `submit(null)` sends it. */
function form({ title, reason, fields, read }, strings, submit) {
  const { say } = strings;
  const body = el('form', { novalidate: true, onsubmit(event) { event.preventDefault(); shown.busy(true); submit(read()); } }, ...fields, el('div', { class: 'chips' },
    el('button', { class: 'primary' }, say('submit')), choice(say('skip'), () => { shown.busy(true); submit(null); })));
  const shown = card(title, reason, strings, body);
  shown.invalid = (errors, message) => {
    shown.problem(errors.some(({ field }) => fields.some(node => node.field === field)) ? '' : message);
    for (const node of fields) {
      const found = errors.find(({ field }) => field === node.field);
      node.querySelector('.error').textContent = found?.message ?? '';
      for (const input of node.querySelectorAll('input')) input.setAttribute('aria-invalid', Boolean(found));
    }
    fields.find(node => errors.some(({ field }) => field === node.field))?.querySelector('input')?.focus();
  };
  return shown;
}

const IDENTITY = { name: ['text', 'name'], email: ['email', 'email'], phone: ['tel', 'tel'] };

function identity({ spec, reason }, strings, submit) {
  const { say } = strings;
  const fields = (spec?.fields ?? []).map(({ key, label, required }) => {
    const [type, autocomplete] = IDENTITY[key] ?? ['text', 'off'], error = el('span', { class: 'error', id: `e${newId()}` });
    const input = el('input', { type, name: key, autocomplete, 'aria-required': required !== false, 'aria-describedby': error.id, dir: 'auto' });
    const words = `${label ?? say(key)}${required === false ? ` (${say('optional')})` : ''}`;
    return Object.assign(el('label', {}, words, input, error), { field: key, input });
  });
  const read = () => Object.fromEntries(fields.filter(({ input }) => input.value.trim()).map(({ field, input }) => [field, input.value.trim()]));
  return form({ title: say('form'), reason, fields, read }, strings, submit);
}

function choices({ spec, reason }, strings, submit) {
  const { say } = strings;
  const fields = (spec?.questions ?? []).map(({ question, header, options = [], multiSelect }) => {
    const name = newId(), other = el('input', { type: 'text', 'aria-label': `${header}: ${say('other')}`, placeholder: say('other'), dir: 'auto' });
    const rows = options.map(({ label, description }) => el('label', { class: 'choice' },
      el('input', { type: multiSelect ? 'checkbox' : 'radio', name, value: label }), el('span', { dir: 'auto' }, label, description && el('small', {}, description))));
    const field = el('fieldset', {}, el('legend', { dir: 'auto' }, question), ...rows, other, el('div', { class: 'error' }));
    // One answer: free text takes the place of a pick.
    if (!multiSelect) other.addEventListener('input', () => { if (other.value) for (const row of rows) row.firstChild.checked = false; });
    if (!multiSelect) field.addEventListener('change', ({ target }) => { if (target !== other) other.value = ''; });
    const read = () => ({ header, options: rows.map(row => row.firstChild).filter(input => input.checked).map(input => input.value), ...(other.value.trim() && { other: other.value.trim() }) });
    return Object.assign(field, { field: header, read });
  });
  return form({ title: say('form'), reason, fields, read: () => ({ answers: fields.map(field => field.read()) }) }, strings, submit);
}

/** The form of an interaction; kinds that are not known can be skipped. */
export function interaction(asked, strings, submit) {
  if (asked.kind === 'identity_intake') return identity(asked, strings, submit);
  if (asked.kind === 'choices') return choices(asked, strings, submit);
  return form({ title: strings.say('form'), reason: asked.reason, fields: [], read: () => ({}) }, strings, submit);
}

/** A one-time password; `verify(code)` sends it. */
export function otp({ actionDescription }, strings, verify) {
  const { say } = strings;
  const hint = el('p'), input = el('input', { type: 'text', inputmode: 'numeric', autocomplete: 'one-time-code', 'aria-required': true, dir: 'ltr' });
  const shown = card(say('otp'), actionDescription, strings, hint, el('form', { novalidate: true, onsubmit(event) {
    event.preventDefault();
    if (!input.value.trim()) return input.focus();
    shown.busy(true);
    verify(input.value.trim());
  } }, el('label', {}, say('code'), input), el('button', { class: 'primary' }, say('verify'))));
  shown.sent = to => { hint.textContent = say('otpSent', { to }); };
  return shown;
}
