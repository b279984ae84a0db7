/**
 * One WebSocket to one of several edges, held for ever: lost connections are noticed within seconds and replaced.
 *
 * (1) Edges are raced: the next one starts when an earlier one fails or stays silent for a moment; the first that opens wins.
 * (2) Pings find connections that a network swallowed; the browser's online event tests at once.
 * (3) Pauses grow up to a limit, with jitter, since the clients of an edge that ends come back together.
 * (4) A refusal that time does not heal ends the attempts; `connect` starts anew.
 */
import { newId } from './dom.js';

const PING_MS = 15000, PONG_MS = 5000, PROBE_MS = 2000, RACE_MS = 400, OPEN_MS = 8000, REPLY_MS = 15000;
const BACKOFF_FIRST_MS = 400, BACKOFF_LAST_MS = 15000, AT_ONCE_MS = 80;
const RESTART_CODE = 1012, TOKEN_CODE = 4401;

/** A refusal by the server, with its code. */
export class Refusal extends Error {
  constructor({ code, message } = {}) {
    super(message ?? code);
    this.code = code ?? 'INTERNAL_ERROR';
  }

  /** True where another attempt would be refused as well. */
  get isPermanent() {
    return ['ORIGIN_NOT_ALLOWED', 'AGENT_NOT_AUTHORIZED', 'AUTH_CONTEXT_INVALID', 'VALIDATION_ERROR'].includes(this.code);
  }
}

export class Connection {
  /**
   * @param {string[]} edges origins, the preferred one first
   * @param {{token(renew: boolean): Promise<string|null>, opened(): Promise<void>, frame(frame: object): void, state(name: string, detail?: any): void}} on
   */
  constructor(edges, on) {
    Object.assign(this, { edges: [...edges], on, socket: null, ready: false, round: 0, attempt: 0, renew: false, ended: true });
    this.replies = new Map();
    this.lastHeard = 0;
    this.listeners = [['online', () => this.probe()], ['offline', () => this.drop()], ['pageshow', () => this.probe()]];
    for (const [name, listener] of this.listeners) addEventListener(name, listener);
    this.pinger = setInterval(() => this.ready && this.ping(PONG_MS), PING_MS);
  }

  /** Connects now, whatever was waited for. */
  async connect() {
    clearTimeout(this.timer);
    const round = ++this.round;
    this.ended = false;
    this.on.state(this.attempt ? 'reconnecting' : 'connecting');
    let token;
    // A host that cannot make a token now may do so later; one that gives none has said that the sign-in is over.
    try { token = await this.on.token(this.renew); } catch { return round === this.round && this.drop(); }
    if (round !== this.round) return;
    if (token === undefined) return this.end('signedOut');
    const socket = await this.race(token, round);
    if (round !== this.round) return socket?.close();
    if (!socket) return this.drop();
    this.adopt(socket);
    try {
      await this.on.opened();
      if (this.socket !== socket) return;
      [this.ready, this.attempt, this.renew] = [true, 0, false];
      this.on.state('ready');
    } catch (error) {
      if (this.socket !== socket) return;
      if (error instanceof Refusal && error.isPermanent) this.end('refused', error);
      else this.drop(false, error);
    }
  }

  /** Returns the first socket that opens, or null. */
  race(token, round) {
    const query = `v=resume${token ? `&token=${encodeURIComponent(token)}` : ''}`;
    return new Promise(resolve => {
      const started = [], waiting = [...this.edges];
      let settled = false, failed = 0, next;
      const settle = winner => {
        if (settled) return;
        settled = true;
        clearTimeout(next);
        clearTimeout(limit);
        for (const socket of started) if (socket !== winner) socket.close();
        resolve(winner);
      };
      const limit = setTimeout(() => settle(null), OPEN_MS);
      const start = () => {
        clearTimeout(next);
        const edge = waiting.shift();
        if (settled || !edge || round !== this.round) return;
        const lost = () => { if (++failed === this.edges.length) settle(null); else start(); };
        let socket;
        // A browser may refuse an address at once: one without TLS on a page with it.
        try { socket = new WebSocket(`${edge.replace(/^http/, 'ws')}/ws?${query}`); } catch { return lost(); }
        socket.edge = edge;
        started.push(socket);
        socket.onopen = () => settle(socket);
        socket.onclose = lost;
        next = setTimeout(start, RACE_MS * (0.5 + Math.random()));
      };
      start();
    });
  }

  adopt(socket) {
    this.socket = socket;
    this.lastHeard = performance.now();
    socket.onmessage = ({ data }) => { if (this.socket === socket) this.receive(JSON.parse(data)); };
    socket.onclose = ({ code }) => {
      if (this.socket !== socket) return;
      if (code !== TOKEN_CODE) return this.drop(code === RESTART_CODE && this.ready);
      // One token may have expired; a second one that is refused as well is for the page to mend.
      if (this.renew) return this.end('signedOut');
      this.renew = true;
      this.drop(true);
    };
  }

  receive(frame) {
    this.lastHeard = performance.now();
    const reply = this.replies.get(frame.requestId ?? frame.data?.requestId);
    if (!reply) return this.on.frame(frame);
    this.replies.delete(frame.requestId);
    clearTimeout(reply.limit);
    if (frame.type === 'error') reply.reject(new Refusal(frame.error ?? frame.data?.error));
    else reply.resolve(frame.data);
  }

  /** Sends an action; false without a connection. */
  send(action) {
    if (this.socket?.readyState !== WebSocket.OPEN) return false;
    this.socket.send(JSON.stringify(action));
    return true;
  }

  /** Sends an action and returns the data of its one reply. */
  request(action, fields = {}) {
    const requestId = newId();
    return new Promise((resolve, reject) => {
      if (!this.send({ action, requestId, ...fields })) return reject(new Error('offline'));
      const limit = setTimeout(() => { this.replies.delete(requestId); reject(new Error('timeout')); }, REPLY_MS);
      this.replies.set(requestId, { resolve, reject, limit });
    });
  }

  /** Drops a connection on which nothing is heard within the time after a ping. */
  ping(withinMs) {
    const socket = this.socket, sent = performance.now();
    if (!this.send({ action: 'ping' })) return;
    setTimeout(() => { if (this.socket === socket && this.lastHeard < sent) this.drop(true); }, withinMs);
  }

  probe() {
    if (this.ended) return;
    if (this.ready) this.ping(PROBE_MS);
    else if (!this.socket) this.connect();
  }

  /** Leaves the socket, whatever its state, and comes back after a pause. */
  drop(atOnce = false, cause = null) {
    if (this.ended) return;
    this.leave(cause);
    const pause = atOnce ? AT_ONCE_MS : Math.min(BACKOFF_LAST_MS, BACKOFF_FIRST_MS * 2 ** this.attempt);
    this.attempt++;
    this.on.state('reconnecting');
    this.timer = setTimeout(() => this.connect(), pause * (0.5 + Math.random() / 2));
  }

  /** Ends the attempts, until `connect` is called. */
  end(state, detail) {
    this.leave();
    clearTimeout(this.timer);
    this.ended = true;
    this.on.state(state, detail);
  }

  leave(cause) {
    const old = this.socket;
    this.round++;
    [this.socket, this.ready] = [null, false];
    if (old) {
      old.close();
      // The next attempt begins with another edge.
      this.edges = [...this.edges.filter(edge => edge !== old.edge), old.edge];
    }
    for (const { reject, limit } of this.replies.values()) { clearTimeout(limit); reject(cause ?? new Error('offline')); }
    this.replies.clear();
  }

  destroy() {
    this.end('closed');
    clearInterval(this.pinger);
    for (const [name, listener] of this.listeners) removeEventListener(name, listener);
  }
}
