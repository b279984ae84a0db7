/** Starts the widget, and is the JavaScript interface of `window.Turnstream`. */
import { Conversation } from './conversation.js';
import { Store } from './store.js';
import { strings } from './strings.js';
import { View } from './view.js';

/**
 * @param {object} api the global, with the calls that were made before
 * @param {{agent?: string, edges: string[], origin: string, lang?: string, position?: string, theme?: string, title?: string,
 *   greeting?: string, examples?: string, mode?: string, token?: string, open?: string}} options
 */
export async function start(api, options) {
  const listeners = new Map();
  const emit = (name, detail = {}) => {
    for (const listener of listeners.get(name) ?? []) try { listener(detail); } catch (error) { console.error(error); }
  };
  const settings = { ...options };
  // Configuration that was given before the widget arrived counts from the first moment on.
  for (const [name, [given]] of api.calls) {
    if (name === 'configure') Object.assign(settings, given);
    if (name === 'identify') settings.user = { ...settings.user, ...given };
  }
  const language = settings.lang || document.documentElement.lang || navigator.language || 'en';
  const words = await strings(language, settings.strings);
  const host = document.createElement('turnstream-widget');
  host.lang = words.language;
  host.dir = words.direction;
  host.dataset.position = settings.position === 'left' ? 'left' : 'right';
  host.dataset.mode = settings.mode === 'page' ? 'page' : 'bubble';

  const conversation = new Conversation(settings, new Store(settings.agent ?? ''), emit);
  const view = new View(host, words, settings, {
    send: message => conversation.send(message), stop: () => conversation.stop(), fresh: () => conversation.restart(),
    earlier: () => conversation.earlier(), chats: () => conversation.chats().catch(error => view.notice(error.message)),
    opened(isOpen) {
      if (isOpen) conversation.connect();
      emit(isOpen ? 'open' : 'close');
    },
  });
  conversation.attach(view);
  const early = api.calls;

  Object.assign(api, {
    open: () => view.open(), close: () => view.close(), toggle: () => view.toggle(), restart: () => conversation.restart(),
    send: text => { view.open(); return conversation.send({ text: String(text) }); },
    configure: given => { Object.assign(settings, given); if ('getToken' in given || 'token' in given) conversation.connect(); },
    identify: user => { settings.user = { ...settings.user, ...user }; },
    on(name, listener) { listeners.set(name, [...listeners.get(name) ?? [], listener]); return api; },
    off(name, listener) { listeners.set(name, (listeners.get(name) ?? []).filter(other => other !== listener)); return api; },
    destroy() { conversation.destroy(); view.destroy(); delete window.Turnstream; },
  });
  delete api.calls;

  const begin = () => {
    document.body.append(host);
    for (const [name, given] of early) if (!['configure', 'identify'].includes(name)) api[name](...given);
    if (settings.mode === 'page' || settings.open != null) view.open();
    // A visitor who was here before may have an answer, or a question, waiting.
    else if (conversation.isUsed) conversation.connect();
    emit('load');
  };
  if (document.body) begin(); else addEventListener('DOMContentLoaded', begin);
}
