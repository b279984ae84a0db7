/**
 * The texts of the widget. Hosts may replace each of them with `Turnstream.configure({ strings })`.
 *
 * English is always there; another language is a module of its own, `lang-…js`, fetched by pages in that language.
 */

const EN = {
  title: 'Chat', open: 'Open chat', close: 'Close chat', newChat: 'New conversation', greeting: 'How can I help?',
  placeholder: 'Write a message', send: 'Send', stop: 'Stop', attach: 'Add files', remove: 'Remove {name}', log: 'Conversation',
  assistant: 'Assistant', you: 'You', earlier: 'Show earlier messages', toEnd: 'Jump to the end', chats: 'Your conversations',
  untitled: 'Conversation', rename: 'Rename', save: 'Save', connecting: 'Connecting…', reconnecting: 'Connection lost. Reconnecting…',
  signedOut: 'Your sign-in has expired. Sign in again to go on here.', refused: 'This chat is not available on this page.',
  working: 'Working…', tool: 'Working on: {name}', toolDone: 'Done: {name}', toolFailed: 'Did not work: {name}', reasoning: 'Thoughts',
  sources: 'Sources', stopped: 'You stopped this answer.', retry: 'Try again', edit: 'Edit', notSent: 'Not sent yet. It is sent when the connection is back.',
  approval: 'Your approval is needed', approve: 'Approve', reject: 'Reject', approved: 'You approved this.', rejected: 'You rejected this.',
  settled: 'Answered, or no longer waiting.', form: 'A few details', submit: 'Submit', skip: 'Skip', submitted: 'Thank you.', skipped: 'Skipped.',
  name: 'Name', email: 'E-mail', phone: 'Phone', other: 'Other', optional: 'optional', otp: 'Confirm that it is you',
  otpSent: 'A code was sent to {to}.', code: 'Code', verify: 'Verify', verified: 'Verified. Your message is sent again.', human: 'A person should look at this.',
  gone: 'The earlier conversation is no longer available. This is a new one.', tooLarge: '{name} is too large. The limit is {limit} MB.',
  uploading: 'Sending files: {percent} %', copy: 'Copy', copied: 'Copied', copyFailed: 'Could not copy', unread: '{count} unread',
  TURN_IN_PROGRESS: 'Another answer is still being written. Wait for it, or stop it first.',
  LLM_UNAVAILABLE: 'The assistant cannot answer at the moment. Please try again later.',
  RATE_LIMITED: 'Too many messages in a short time. Wait a moment, then try again.',
  STORAGE_ERROR: 'Messages cannot be stored at the moment. Please try again soon.',
  AGENT_ERROR: 'The answer could not be finished. Please try again.', INTERNAL_ERROR: 'Something went wrong. Please try again.',
  OTP_SEND_FAILED: 'The code could not be sent. Please try again later.', AUTH_CONTEXT_INVALID: 'Your sign-in could not be checked. Reload the page.',
};
const LANGUAGES = ['de', 'fr', 'es', 'ja', 'ar'];
const RIGHT_TO_LEFT = ['ar', 'he', 'fa', 'ur'];

/**
 * Returns a language's strings, English where one is missing.
 * @param {string} wanted a language tag @param {Record<string, string>} [own] the host's strings
 */
export async function strings(wanted, own = {}) {
  const language = wanted.toLowerCase().split('-')[0];
  const translated = LANGUAGES.includes(language) ? await import(`./lang-${language}.js`).catch(() => null) : null;
  const table = { ...EN, ...translated?.default, ...own };
  const isKnown = language === 'en' || translated || Object.keys(own).length > 0;
  return {
    say: (key, values = {}) => (table[key] ?? key).replace(/\{(\w+)\}/g, (_, name) => values[name] ?? ''),
    has: key => Object.hasOwn(table, key),
    language: isKnown ? wanted : 'en',
    direction: isKnown && RIGHT_TO_LEFT.includes(language) ? 'rtl' : 'ltr',
  };
}
