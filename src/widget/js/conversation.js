/**
 * The conversation: its session, its turns, and their repair after a lost connection.
 *
 * A message is kept until an edge has acknowledged it, and is sent again under the same requestId, which is the same turn for the
 * server. A connection that comes back names the cursor of the last frame and gets the frames that it missed, once. A page that
 * was loaded anew has no text on the screen, so it names none and gets a running turn from its beginning.
 */
import { approval, interaction, otp } from './cards.js';
import { Connection, Refusal } from './connection.js';
import { newId } from './dom.js';

const SUPPORTS = ['identity_form', 'choice_chips', 'resume'], PAGE = 50, KEPT_CHATS = 20;

export class Conversation {
  /** @param {object} options @param {object} store @param {(name: string, detail?: object) => void} emit */
  constructor(options, store, emit) {
    Object.assign(this, { options, store, emit, turns: new Map(), over: new Set(), asked: new Map(), cursor: undefined, seq: undefined, shown: false });
    const saved = store.read();
    this.session = saved.session;
    this.conversation = saved.conversation;
    this.pending = saved.pending ?? null;
    this.connection = new Connection(options.edges, {
      token: renew => this.token(renew), opened: () => this.opened(), frame: frame => this.frame(frame), state: (name, detail) => this.state(name, detail),
    });
    // Tabs of one browser share the session: frames come to each, the text of a message only from the tab that sent it.
    this.channel = new BroadcastChannel(store.key);
    this.channel.onmessage = ({ data }) => this.heard(data);
  }

  attach(view) { this.view = view; }

  get isUsed() { return Boolean(this.session); }

  connect() { if (this.connection.ended) this.connection.connect(); }

  /** Returns the page's token. A page with `getToken` that gives none has a user with an expired sign-in: never a stranger. */
  async token(renew) {
    if (!this.options.getToken) return this.options.token ?? (renew ? undefined : null);
    return (await this.options.getToken({ renew })) || undefined;
  }

  state(name, detail) {
    const { say, has } = this.view.strings;
    const permanent = { signedOut: say('signedOut'), refused: has(detail?.code) ? say(detail.code) : say('refused') };
    this.view.status.textContent = name === 'ready' || name === 'closed' ? '' : permanent[name] ?? say(name);
    this.emit(name === 'refused' || name === 'signedOut' ? 'error' : name, { code: detail?.code ?? name });
  }

  // ---- Sessions

  async opened() {
    if (this.session) {
      try { await this.resume(); } catch (error) {
        if (error.code !== 'SESSION_NOT_FOUND') throw error;
        await this.create();
      }
    } else await this.create();
    if (!this.shown) await this.loadHistory();
    this.shown = true;
    this.sendPending();
  }

  async resume() {
    const { session, turn } = await this.connection.request('resume_session', { sessionId: this.session, seq: this.seq });
    this.conversation = session.conversationId;
    // Turns of this page that are neither running nor caught up have ended meanwhile; their frames follow, or history has them.
    if (turn && !this.over.has(turn.requestId)) this.turnOf(turn.requestId);
    if (this.pending && turn?.requestId === this.pending.requestId) this.acknowledged(this.pending.requestId);
  }

  async create() {
    const { agent, user = {} } = this.options, before = this.conversation;
    const opened = await this.connection.request('create_conversation_session', {
      agentId: agent, supports: SUPPORTS, conversationId: before, sessionId: before && this.session, userName: user.name, userEmail: user.email, metadata: user.metadata, authContext: user.authContext,
    });
    if (before && opened.conversationId !== before) {
      this.forget();
      this.view.notice(this.view.strings.say('gone'));
    }
    [this.session, this.conversation] = [opened.sessionId, opened.conversationId];
    this.store.write({ session: this.session, conversation: this.conversation });
  }

  /** Shows the newest page of the history; messages that are shown stay as they are. */
  async loadHistory() {
    const page = await this.connection.request('get_conversation_messages', { sessionId: this.session, limit: PAGE });
    this.cursor = page.nextCursor;
    this.view.earlier.hidden = !page.hasMore;
    this.prepend(page.messages);
  }

  async earlier() {
    if (!this.cursor || this.loading) return;
    this.loading = true;
    try {
      const page = await this.connection.request('get_conversation_messages', { sessionId: this.session, limit: PAGE, cursor: this.cursor });
      const { scroll } = this.view, fromEnd = scroll.scrollHeight - scroll.scrollTop;
      this.view.stick = false;
      this.prepend(page.messages);
      this.cursor = page.nextCursor;
      this.view.earlier.hidden = !page.hasMore;
      scroll.scrollTop = scroll.scrollHeight - fromEnd;
    } catch { /* the button stays */ } finally { this.loading = false; }
  }

  prepend(messages) {
    const nodes = [...messages].reverse().filter(message => !this.view.find(message.id) && !this.isShown(message)).map(message => message.direction === 'inbound'
      ? this.view.user({ text: message.content.text, id: message.id, time: new Date(message.createdAt) }) : this.view.answer(message));
    this.view.log.prepend(...nodes);
    this.view.showWelcome();
  }

  /** A message that was sent from here is on the screen without its id. */
  isShown({ direction, id, content }) {
    const mine = direction === 'inbound' && [...this.view.log.querySelectorAll('.user:not([data-id])')].find(node => node.text === content.text);
    if (mine) mine.dataset.id = id;
    return Boolean(mine);
  }

  forget() {
    for (const id of this.turns.keys()) this.over.add(id);
    this.turns.clear();
    this.view.clear();
    this.view.composer.setRunning(false);
    [this.session, this.conversation, this.pending, this.seq, this.cursor, this.shown] = [undefined, undefined, null, undefined, undefined, false];
    this.store.write({ session: undefined, conversation: undefined, pending: undefined });
  }

  /** Begins a new conversation, or opens an earlier one. */
  restart({ conversationId, sessionId } = {}) {
    this.stop();
    this.forget();
    [this.conversation, this.session] = [conversationId, sessionId];
    this.connection.ended ? this.connection.connect() : this.connection.drop(true);
  }

  // ---- Messages

  send({ text, images = [], files = [] }) {
    if (this.turns.size || this.pending) return false;
    const pending = { requestId: newId(), text, images, files };
    this.show(pending);
    // Files may be larger than the browser's storage takes; the text must not be lost.
    this.store.write({ pending: { requestId: pending.requestId, text, images: [], files: [] } });
    this.pending = pending;
    if (this.connection.ready) this.sendPending();
    else { this.note = this.view.notice(this.view.strings.say('notSent')); this.connect(); }
    this.emit('send', { text });
    return true;
  }

  show({ requestId, text, images, files }) {
    const node = this.view.user({ text, files: [...images, ...files] });
    this.view.append(node);
    this.asked.set(requestId, { text, node });
    this.view.follow(true);
  }

  sendPending() {
    if (!this.pending) return;
    const { requestId, text, images, files } = this.pending;
    this.note?.remove();
    if (!this.asked.has(requestId)) {
      const latest = [...this.view.log.querySelectorAll('.user')].at(-1);
      if (latest?.text === text) this.asked.set(requestId, { text, node: latest }); else this.show(this.pending);
    }
    const message = { action: 'send_message', requestId, sessionId: this.session, message: text };
    if (images.length) message.images = images.map(({ url }) => ({ url }));
    if (files.length) message.files = files;
    if (!this.connection.send(message)) return;
    this.turnOf(requestId);
    if (images.length || files.length) this.watchUpload(this.connection.socket);
    this.channel.postMessage({ requestId, text, conversation: this.conversation });
  }

  watchUpload(socket) {
    const all = socket.bufferedAmount || 1, timer = setInterval(() => {
      const left = socket.readyState === WebSocket.OPEN ? socket.bufferedAmount : 0;
      this.view.composer.showProgress(left ? 50 + 50 * (1 - left / all) : null);
      if (!left) clearInterval(timer);
    }, 100);
  }

  /** Another tab sent a message. */
  heard({ requestId, text, conversation }) {
    if (conversation !== this.conversation || this.asked.has(requestId)) return;
    const running = this.turns.get(requestId)?.root ?? this.over.has(requestId);
    const node = this.view.user({ text });
    this.asked.set(requestId, { text, node });
    if (running?.before) running.before(node); else this.view.append(node);
  }

  acknowledged(id) {
    if (this.pending?.requestId !== id) return;
    this.remember(this.pending.text);
    this.pending = null;
    this.store.write({ pending: undefined });
  }

  stop() {
    for (const id of this.turns.keys()) this.connection.send({ action: 'cancel', sessionId: this.session, requestId: id });
  }

  // ---- Frames

  turnOf(id) {
    if (!id || this.over.has(id)) return null;
    if (!this.turns.has(id)) {
      this.turns.set(id, this.view.turn(id));
      this.view.composer.setRunning(true);
    }
    return this.turns.get(id);
  }

  frame(frame) {
    if (frame.seq) this.seq = frame.seq;
    const id = frame.requestId ?? frame.data?.requestId, error = frame.error ?? frame.data?.error;
    if (frame.type === 'error') return this.failed(id, error ?? {});
    if (frame.type === 'immediate_response') return this.replied(id, frame);
    if (frame.type.startsWith('otp_')) return this.password(frame);
    const handle = Object.hasOwn(FRAMES, frame.type) && FRAMES[frame.type], turn = handle && this.turnOf(id);
    if (!turn) return;
    this.acknowledged(id);
    handle.call(this, turn, frame.data ?? {});
  }

  replied(id, { status, data }) {
    const { say } = this.view.strings;
    if (status === 202) { this.acknowledged(id); this.turnOf(id); }
    if (typeof data?.approved === 'boolean') this.turns.get(id)?.settle(say(data.approved ? 'approved' : 'rejected'));
    if (data?.interactionId) this.turns.get(id)?.settle(say(data.declined ? 'skipped' : 'submitted'));
  }

  ask(turn, card, text) {
    turn.ask(card);
    this.view.announce(text);
    this.emit('card', { text });
    // Never takes the focus from a visitor who is typing, or who is elsewhere on the page.
    if (this.view.isOpen && !this.view.composer.input.value && this.view.shadow.activeElement) card.root.focus();
  }

  /** Sends the answer to a card; without a connection the card can be answered again. */
  answerCard(turn, fields) {
    if (!this.connection.send({ requestId: turn.id, sessionId: this.session, ...fields })) turn.card.problem(this.view.strings.say('reconnecting'));
  }

  finish(id, then) {
    const turn = this.turns.get(id);
    this.turns.delete(id);
    this.over.add(id);
    this.acknowledged(id);
    this.view.composer.setRunning(this.turns.size > 0);
    if (turn) then(turn);
  }

  failed(id, { code, message }) {
    const { say, has } = this.view.strings, words = has(code) ? say(code) : message || say('INTERNAL_ERROR'), turn = this.turns.get(id);
    // The close that follows asks the page for another token.
    if (code === 'INVALID_TOKEN') return;
    if (code?.startsWith('NO_PENDING')) return turn?.settle(say('settled'));
    if (turn?.card?.waits && code !== 'AGENT_ERROR') return turn.card.problem(words);
    this.emit('error', { code, message: words });
    if (code === 'SESSION_NOT_FOUND') return this.connection.drop(true, new Refusal({ code }));
    if (!turn) return id ? undefined : this.view.notice(words);
    this.finish(id, () => {
      turn.end(words, { bad: true });
      this.view.announce(words);
      const text = this.asked.get(id)?.text;
      if (text) turn.root.append(...this.retryButtons(text, turn));
    });
  }

  retryButtons(text, turn) {
    const button = (label, onclick) => Object.assign(document.createElement('button'), { type: 'button', textContent: this.view.strings.say(label), onclick });
    const leave = () => turn.root.querySelectorAll('button').forEach(node => node.remove());
    return [button('retry', () => { if (this.send({ text })) leave(); }), ' ', button('edit', () => { leave(); this.view.composer.giveBack(text); })];
  }

  /** One-time passwords do not park a turn: the message is sent again once the visitor is verified. */
  password({ type, data }) {
    const { say } = this.view.strings, found = data?.data ?? data ?? {}, id = data?.requestId;
    if (type === 'otp_verification_required') {
      const turn = this.turnOf(id), text = this.asked.get(id)?.text;
      if (!turn) return;
      this.passwordCard = otp(found, this.view.strings, code => {
        if (!this.connection.send({ action: 'verify_otp', requestId: newId(), sessionId: this.session, code })) this.passwordCard.problem(say('reconnecting'));
      });
      Object.assign(this.passwordCard, { verifies: true, text });
      return this.ask(turn, this.passwordCard, say('otp'));
    }
    const card = this.passwordCard;
    if (!card?.waits) return;
    if (type === 'otp_sent') card.sent(found.maskedDestination);
    if (type === 'otp_invalid') found.attemptsRemaining > 0 ? card.problem(found.message) : card.settle(found.message);
    if (type === 'otp_verified') {
      card.settle(say('verified'));
      if (card.text) this.send({ text: card.text });
    }
  }

  // ---- Lists

  /** Remembers the conversation under its first message, for visitors without a sign-in. */
  remember(title) {
    const chats = this.store.read().chats ?? [], known = chats.find(chat => chat.conversationId === this.conversation);
    if (!this.conversation || known) return;
    this.store.write({ chats: [{ conversationId: this.conversation, sessionId: this.session, title: title.slice(0, 60) }, ...chats].slice(0, KEPT_CHATS) });
  }

  async chats() {
    const signedIn = Boolean(this.options.getToken || this.options.token);
    // Without a sign-in the server's list may be that of all visitors, so the browser's own is shown.
    const chats = signedIn ? (await this.connection.request('list_conversations', { limit: PAGE })).conversations : this.store.read().chats ?? [];
    const rename = async (conversationId, title) => {
      if (title.trim()) await this.connection.request('rename_conversation', { conversationId, title }).catch(error => this.view.notice(error.message));
      return this.chats();
    };
    this.view.showChats(chats, chat => { if (chat.conversationId !== this.conversation) this.restart(chat); }, signedIn ? rename : null);
  }

  destroy() {
    this.channel.close();
    this.connection.destroy();
  }
}

/** Handlers of the frames of a turn. */
const FRAMES = {
  keepalive() {},
  stream_token(turn, { token }) { turn.token(token); },
  stream_reasoning(turn, { token }) { turn.aside('reasoning', token); },
  stream_preamble(turn, { token }) { turn.aside('preamble', token); },
  stream_chunk(turn, { node, state }) {
    const { toolCall, toolResult } = state?.rawResponse ?? {};
    if (node === 'turn_restarted') turn.restart();
    if (toolCall) turn.called(toolCall);
    if (toolResult) turn.returned(toolResult);
  },
  write_confirmation_required(turn, { data }) {
    const decide = approved => this.answerCard(turn, { action: 'confirm_tool_action', approved });
    this.ask(turn, approval(data, this.view.strings, decide), `${this.view.strings.say('approval')}: ${data.actionDescription || data.toolId}`);
  },
  interaction_required(turn, { data }) {
    const { interactionId, kind } = data;
    const submit = values => this.answerCard(turn, { action: 'submit_interaction', interactionId, kind, ...(values ? { values } : { declined: true }) });
    this.ask(turn, interaction(data, this.view.strings, submit), data.reason || this.view.strings.say('form'));
  },
  interaction_invalid(turn, { data }) { turn.card?.invalid?.(data.errors ?? [], data.message); },
  eventual_response(turn, { data }) {
    this.finish(turn.id, () => {
      // History may have shown the answer already.
      if (data.messageId && this.view.find(data.messageId) !== turn.root) this.view.find(data.messageId)?.remove();
      turn.finish(data);
      this.view.suggest(data.response?.suggestedNextActions);
      this.view.announce(turn.text.textContent);
      this.emit('answer', { text: turn.raw, messageId: data.messageId });
    });
  },
  cancelled(turn) { this.finish(turn.id, () => turn.end(this.view.strings.say('stopped'))); },
};
