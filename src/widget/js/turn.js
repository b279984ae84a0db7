/** The view of one turn: activity, the text that grows, a card, sources, and how it ended. */
import { el, link } from './dom.js';
import { Markdown } from './markdown.js';

/** A tool's name as words: `issue_refund` is "issue refund". */
const words = name => name.replace(/^.*[.:/]/, '').replace(/[_-]+/g, ' ').replace(/([a-z])([A-Z])/g, '$1 $2').toLowerCase().trim();

/** Tools that show a card: the card says it all. */
const FORMS = ['request_identity_intake', 'request_choices'];

export class Turn {
  /** @param {string|null} id the requestId @param {object} strings @param {(date: Date) => Node} clock */
  constructor(id, strings, clock) {
    Object.assign(this, { id, strings, clock, raw: '', pause: false, rows: [], card: null, ended: false });
    const { say } = strings;
    this.text = el('div', { class: 'text', dir: 'auto', part: 'answer' });
    this.activity = el('div', { class: 'activity' });
    this.root = el('article', { class: 'message assistant live', 'aria-label': say('assistant'), 'aria-busy': 'true' }, this.activity, this.text);
    this.markdown = new Markdown(this.text, { copy: say('copy'), copied: say('copied'), copyFailed: say('copyFailed') });
  }

  /** Adds text. It is drawn with the browser's next frame, however many tokens arrive until then. */
  token(text) {
    this.raw += this.pause && this.raw ? `\n\n${text}` : text;
    this.pause = false;
    if (this.drawing) return;
    this.drawing = true;
    // A tab in the background draws no frames.
    (document.hidden ? setTimeout : requestAnimationFrame)(() => { this.drawing = false; if (!this.ended) this.markdown.show(this.raw); });
  }

  aside(kind, text) {
    if (kind === 'preamble') this.preamble ??= this.activity.appendChild(el('p', { dir: 'auto' }));
    else this.reasoning ??= this.activity.appendChild(el('details', {}, el('summary', {}, this.strings.say('reasoning')), el('div', { dir: 'auto' }))).lastChild;
    this[kind].append(text);
  }

  /** The text of the model call comes anew, and calls without a result are announced again. */
  restart() {
    this.raw = '';
    this.markdown.show('');
    for (const row of this.rows) row.stale = row.open;
  }

  called({ name, arguments: args }) {
    this.pause = true;
    if (FORMS.includes(name)) return;
    const again = this.rows.find(row => row.open && row.stale && row.name === name && row.args === args);
    if (again) again.stale = false;
    else this.row(name, args);
  }

  row(name, args) {
    const row = { name, args, open: true, node: el('p', { class: 'tool', dir: 'auto' }, this.strings.say('tool', { name: words(name) })) };
    this.activity.append(row.node);
    this.rows.push(row);
    return row;
  }

  returned({ name, isError }) {
    this.settle(this.strings.say('settled'));
    if (FORMS.includes(name)) return;
    const row = this.rows.find(row => row.open && row.name === name) ?? this.row(name);
    row.open = false;
    row.node.classList.add(isError ? 'bad' : 'done');
    row.node.textContent = `${isError ? '✕' : '✓'} ${this.strings.say(isError ? 'toolFailed' : 'toolDone', { name: words(name) })}`;
  }

  /** Shows a card in place of the one before. */
  ask(card) {
    this.card?.root.remove();
    this.card = card;
    this.root.append(card.root);
    this.root.setAttribute('aria-busy', 'false');
  }

  settle(words) {
    if (!this.card?.waits) return;
    this.card.settle(words);
    if (!this.ended) this.root.setAttribute('aria-busy', 'true');
  }

  /** Ends the turn with its answer. */
  finish({ messageId, response, citations, needsEscalation, escalationReason }) {
    this.show((response?.responseParts ?? []).join('\n\n') || this.raw);
    if (messageId) this.root.dataset.id = messageId;
    if (citations?.length) this.root.append(this.sources(citations));
    if (needsEscalation) this.root.append(el('p', { class: 'note' }, `${this.strings.say('human')} ${escalationReason ?? ''}`));
    this.end();
  }

  show(text) {
    this.raw = text;
    this.markdown.show(text);
  }

  sources(citations) {
    return el('div', { class: 'sources', part: 'sources' }, el('strong', {}, this.strings.say('sources')), el('ol', {}, ...citations.map(({ id, title, url, snippet }) =>
      el('li', { dir: 'auto' }, link(title || id, url), snippet && el('span', {}, snippet)))));
  }

  /** Ends the turn; `note` says how, where it did not end with an answer. */
  end(note, { bad = false, time = new Date() } = {}) {
    this.ended = true;
    this.root.classList.remove('live');
    this.root.removeAttribute('aria-busy');
    if (this.card?.waits && this.card.verifies !== true) this.card.settle(this.strings.say('settled'));
    for (const row of this.rows) if (row.open) row.node.textContent = `– ${words(row.name)}`;
    if (note) {
      this.markdown.show(this.raw);
      this.root.append(el('p', { class: `note ended${bad ? ' bad' : ''}` }, note));
    }
    this.root.append(this.clock(time));
  }
}
