/**
 * The widget's memory: one entry of the host page's localStorage for each agent, `turnstream:{agent}`.
 *
 * It holds ids of the session and the conversation, the message that no edge has acknowledged yet, and the conversations that
 * this browser had. A browser that forbids storage costs the memory over a reload, nothing else.
 */
export class Store {
  /** @param {string} agent */
  constructor(agent) {
    this.key = `turnstream:${agent}`;
  }

  read() {
    try { return JSON.parse(localStorage.getItem(this.key)) ?? {}; } catch { return {}; }
  }

  /** Changes some entries; undefined removes one. Other tabs write as well, so the rest is read anew. */
  write(changes) {
    try { localStorage.setItem(this.key, JSON.stringify({ ...this.read(), ...changes })); } catch { /* see above */ }
  }
}
