/** The panel: launcher, header, log, composer. It shows the conversation's state, and decides nothing. */
import { Composer } from './composer.js';
import { ICONS, el, icon } from './dom.js';
import { dress } from './styles.js';
import { Turn } from './turn.js';

const NEAR_END_PX = 80, SPOKEN_CHARS = 4000;

export class View {
  /**
   * @param {HTMLElement} host @param {object} strings @param {object} look the host's configuration
   * @param {object} on send, stop, fresh, earlier, chats, retry, opened
   */
  constructor(host, strings, look, on) {
    Object.assign(this, { host, strings, look, on, unread: 0, stick: true, isOpen: false });
    this.shadow = host.attachShadow({ mode: 'open' });
    dress(this.shadow);
    this.build();
    this.watchScroll();
    this.theme = matchMedia('(prefers-color-scheme: dark)');
    this.setTheme = () => { host.dataset.theme = ['light', 'dark'].includes(look.theme) ? look.theme : this.theme.matches ? 'dark' : 'light'; };
    this.theme.addEventListener('change', this.setTheme);
    this.setTheme();
  }

  build() {
    const { strings: { say }, look, on } = this;
    const tool = (label, path, kind, onclick) => el('button', { type: 'button', class: `plain ${kind}`, 'aria-label': say(label), title: say(label), onclick }, icon(path));
    this.badge = el('span', { class: 'badge', hidden: true });
    this.launcher = el('button', { type: 'button', class: 'launcher primary', part: 'launcher', 'aria-label': say('open'), 'aria-expanded': 'false', onclick: () => this.toggle() }, icon(ICONS.chat), this.badge);
    this.title = el('h2', { dir: 'auto' }, look.title || say('title'));
    this.status = el('div', { class: 'status', role: 'status' });
    this.earlier = el('button', { type: 'button', class: 'earlier', hidden: true, onclick: () => on.earlier() }, say('earlier'));
    this.log = el('div', { class: 'log', role: 'log', 'aria-live': 'off', 'aria-label': say('log') });
    const examples = (look.examples ?? '').split('|').map(text => text.trim()).filter(Boolean);
    this.welcome = el('div', { class: 'welcome' }, el('p', { dir: 'auto' }, look.greeting || say('greeting')), el('div', { class: 'chips' }, ...this.chips(examples)));
    this.scroll = el('div', { class: 'scroll', tabindex: 0, role: 'region', 'aria-label': say('log') }, this.earlier, this.welcome, this.log);
    this.toEnd = el('button', { type: 'button', class: 'to-end', hidden: true, 'aria-label': say('toEnd'), onclick: () => this.follow(true) }, icon(ICONS.down));
    this.spoken = el('div', { class: 'hidden', role: 'status', 'aria-live': 'polite' });
    this.chatList = el('div', { class: 'chats', hidden: true });
    this.composer = new Composer(this.strings, { send: on.send, stop: on.stop, problem: words => this.notice(words) });
    this.panel = el('section', { class: 'panel', part: 'panel', role: look.mode === 'page' ? 'main' : 'dialog', 'aria-label': look.title || say('title'), hidden: true },
      el('header', { part: 'header' }, this.title, tool('chats', ICONS.list, 'all', () => on.chats()), tool('newChat', ICONS.plus, 'fresh', () => on.fresh()), tool('close', ICONS.close, 'shut', () => this.close())),
      this.status, this.chatList, this.scroll, el('div', { class: 'below' }, this.toEnd), this.composer.root, this.spoken);
    this.composer.dropOn(this.panel);
    this.panel.addEventListener('keydown', event => { if (event.key === 'Escape' && look.mode !== 'page') this.close(); });
    this.shadow.append(this.launcher, this.panel);
  }

  chips(texts) {
    return texts.map(text => el('button', { type: 'button', dir: 'auto', onclick: () => this.on.send({ text }) }, text));
  }

  watchScroll() {
    this.scroll.addEventListener('scroll', () => {
      this.stick = this.scroll.scrollHeight - this.scroll.scrollTop - this.scroll.clientHeight < NEAR_END_PX;
      this.toEnd.hidden = this.stick;
    }, { passive: true });
    this.resizing = new ResizeObserver(() => this.follow());
    this.resizing.observe(this.log);
    this.resizing.observe(this.scroll);
  }

  /** Scrolls to the end, unless the reader has gone up. */
  follow(always = false) {
    if (always) this.stick = true;
    if (this.stick) this.scroll.scrollTop = this.scroll.scrollHeight;
  }

  toggle() { if (this.isOpen) this.close(); else this.open(); }

  open() {
    if (this.isOpen) return;
    this.isOpen = true;
    this.host.dataset.open = '';
    this.panel.hidden = false;
    this.launcher.setAttribute('aria-expanded', 'true');
    this.launcher.setAttribute('aria-label', this.strings.say('close'));
    this.count(0);
    this.follow();
    // On a phone the focus would bring the keyboard up.
    if (!matchMedia('(pointer: coarse)').matches) this.composer.input.focus();
    this.on.opened(true);
  }

  close() {
    if (!this.isOpen || this.look.mode === 'page') return;
    this.isOpen = false;
    delete this.host.dataset.open;
    this.panel.hidden = true;
    this.launcher.setAttribute('aria-expanded', 'false');
    this.launcher.setAttribute('aria-label', this.strings.say('open'));
    this.launcher.focus();
    this.on.opened(false);
  }

  count(unread) {
    this.unread = unread;
    this.badge.hidden = !unread;
    this.badge.replaceChildren(el('span', { 'aria-hidden': 'true' }, String(unread)), el('span', { class: 'hidden' }, this.strings.say('unread', { count: unread })));
  }

  /** Says a text once to screen readers, and counts it where the panel is closed. */
  announce(text) {
    this.spoken.textContent = text.slice(0, SPOKEN_CHARS);
    if (!this.isOpen) this.count(this.unread + 1);
  }

  clock(time) {
    const today = new Date().toDateString() === time.toDateString();
    const shape = today ? { hour: 'numeric', minute: '2-digit' } : { dateStyle: 'medium', timeStyle: 'short' };
    return el('time', { datetime: time.toISOString() }, new Intl.DateTimeFormat(this.strings.language, shape).format(time));
  }

  /** Returns the element of a visitor's message. */
  user({ text, id, files = [], time = new Date() }) {
    const names = files.map(file => `📎 ${file.name}`).join('\n');
    const root = el('div', { class: 'message user', role: 'article', 'aria-label': this.strings.say('you') }, el('div', { class: 'bubble', dir: 'auto', part: 'message' }, [text, names].filter(Boolean).join('\n')), this.clock(time));
    root.text = text;
    if (id) root.dataset.id = id;
    return root;
  }

  append(node) {
    this.log.querySelectorAll('.suggestions').forEach(chips => chips.remove());
    this.log.append(node);
    this.showWelcome();
  }

  showWelcome() { this.welcome.hidden = this.log.childElementCount > 0 || !this.earlier.hidden; }

  turn(id) {
    const turn = new Turn(id, this.strings, time => this.clock(time));
    this.append(turn.root);
    return turn;
  }

  /** Returns a finished answer of the history. */
  answer({ id, content, createdAt }) {
    const turn = new Turn(null, this.strings, time => this.clock(time));
    turn.show(content.text ?? '');
    turn.root.dataset.id = id;
    turn.end(null, { time: new Date(createdAt) });
    return turn.root;
  }

  find(id) { return this.log.querySelector(`[data-id="${CSS.escape(id)}"]`); }

  suggest(texts) { if (texts?.length) this.log.append(el('div', { class: 'chips suggestions' }, ...this.chips(texts))); }

  notice(text, ...actions) {
    const node = el('p', { class: 'notice', role: 'alert' }, text, ...actions);
    this.log.append(node);
    return node;
  }

  clear() {
    this.log.replaceChildren();
    this.earlier.hidden = true;
    this.showWelcome();
  }

  /** Shows a list of conversations in place of the log. `pick(chat)` opens one; `rename(id, title)` is null where it can't be done. */
  showChats(chats, pick, rename) {
    const { say } = this.strings, leave = () => { this.chatList.hidden = true; this.scroll.hidden = this.composer.root.hidden = false; this.composer.input.focus(); };
    const entry = chat => {
      const { conversationId, title } = chat;
      const open = el('button', { type: 'button', dir: 'auto', onclick: () => { leave(); pick(chat); } }, title || say('untitled'));
      const item = el('li', {}, open);
      if (rename) item.append(el('button', { type: 'button', onclick() {
        const input = el('input', { type: 'text', value: title, maxlength: 60, 'aria-label': say('rename') });
        item.replaceChildren(input, el('button', { type: 'button', class: 'primary', onclick: () => rename(conversationId, input.value) }, say('save')));
        input.focus();
      } }, say('rename')));
      return item;
    };
    this.chatList.replaceChildren(el('h3', {}, say('chats')), el('ul', {}, ...chats.map(entry)), el('p', {}, el('button', { type: 'button', onclick: leave }, say('log'))));
    this.chatList.hidden = false;
    this.scroll.hidden = this.composer.root.hidden = true;
    this.chatList.querySelector('button').focus();
  }

  destroy() {
    this.resizing.disconnect();
    this.theme.removeEventListener('change', this.setTheme);
    this.host.remove();
  }
}
