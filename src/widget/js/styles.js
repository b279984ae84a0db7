/**
 * The widget's style, as a constructable style sheet: the page's Content-Security-Policy needs no exception for it.
 *
 * Host pages change it by custom properties of `turnstream-widget` (`--turnstream-accent`, …) and by `::part(…)`.
 */
const CSS = `
:host { all: initial; --page: #f7f7f5; --panel: #fff; --ink: #1d2327; --soft: #55606a; --line: #8b949a; --hair: #e2e4e1; --tint: #e1f1ee; --code: #eeefec;
  --accent: var(--turnstream-accent, #0f766e); --on-accent: var(--turnstream-on-accent, #fff); --warn: #8f4206; --bad: #b3261e;
  color-scheme: light; font: 15px/1.5 var(--turnstream-font, system-ui, -apple-system, "Segoe UI", Roboto, sans-serif); color: var(--ink); }
:host([data-theme=dark]) { --page: #14181a; --panel: #1c2225; --ink: #e6eaeb; --soft: #a6b1b7; --line: #6b777d; --hair: #2f383c; --tint: #17403b; --code: #252c30;
  --accent: var(--turnstream-accent, #4fc3b3); --on-accent: var(--turnstream-on-accent, #06211d); --warn: #f0b35a; --bad: #ff8a80; color-scheme: dark; }
* { box-sizing: border-box; } [hidden] { display: none !important; }
button, textarea, input { font: inherit; color: inherit; } button { cursor: pointer; border: 1px solid var(--line); border-radius: 10px; background: var(--panel); padding: 6px 13px; min-height: 32px; }
button:disabled { opacity: .55; cursor: default; } button:hover:not(:disabled) { border-color: var(--accent); }
:focus-visible { outline: 2px solid var(--accent); outline-offset: 2px; }
.icon { fill: none; stroke: currentColor; stroke-width: 2; stroke-linecap: round; stroke-linejoin: round; display: block; }
.primary { background: var(--accent); border-color: var(--accent); color: var(--on-accent); font-weight: 600; }
.plain { border-color: transparent; background: none; padding: 5px; }
.hidden { position: absolute; width: 1px; height: 1px; overflow: hidden; clip-path: inset(50%); white-space: nowrap; }
.launcher { position: fixed; inset-block-end: 20px; inset-inline-end: 20px; z-index: 2147483000; width: 56px; height: 56px; border-radius: 50%; padding: 16px; box-shadow: 0 4px 16px #0004; }
.launcher .icon { width: 100%; height: 100%; }
.badge { position: absolute; inset-block-start: -4px; inset-inline-end: -4px; min-width: 22px; border-radius: 11px; background: #b3261e; color: #fff; font-size: 13px; line-height: 22px; padding: 0 5px; }
.panel { position: fixed; inset-block-end: 88px; inset-inline-end: 20px; z-index: 2147483000; width: min(400px, calc(100vw - 24px)); height: min(640px, calc(100dvh - 108px));
  display: flex; flex-direction: column; background: var(--page); border: 1px solid var(--hair); border-radius: 16px; overflow: hidden; box-shadow: 0 8px 32px #0004; }
:host([data-position=left]) :is(.launcher, .panel) { inset-inline: 20px auto; }
:host([data-mode=page]) .panel { inset: 0; width: auto; height: auto; border: 0; border-radius: 0; box-shadow: none; } :host([data-mode=page]) :is(.launcher, .shut) { display: none; }
:host([data-mode=page]) :is(.log, .composer, .below) { width: 100%; max-width: 760px; margin-inline: auto; }
@media (max-width: 480px) { .panel { inset: 0; width: 100vw; height: 100dvh; border: 0; border-radius: 0; } :host([data-open]) .launcher { display: none; } }
header { display: flex; align-items: center; gap: 6px; padding: 9px 14px; background: var(--panel); border-block-end: 1px solid var(--hair); }
header h2 { flex: 1; font-size: 16px; margin: 0; overflow: hidden; text-overflow: ellipsis; white-space: nowrap; }
.status { padding: 5px 14px; font-size: 13px; color: var(--ink); background: var(--code); } .status:empty { display: none; }
.scroll { flex: 1; overflow-y: auto; overscroll-behavior: contain; padding: 14px; position: relative; }
.log { display: flex; flex-direction: column; gap: 13px; } .log > * { content-visibility: auto; contain-intrinsic-size: auto 70px; } .log > .live { content-visibility: visible; }
.below { display: flex; justify-content: center; } .to-end { margin-block-start: -42px; border-radius: 17px; z-index: 1; }
.earlier { display: block; margin: 0 auto 13px; } .welcome { text-align: center; padding-block: 30px; } .welcome p { font-size: 19px; margin: 0 0 15px; white-space: pre-line; }
.chips { display: flex; flex-wrap: wrap; gap: 7px; } .welcome .chips { justify-content: center; }
.message { overflow-wrap: anywhere; min-width: 0; } .user { align-self: flex-end; max-width: 88%; } .bubble { background: var(--tint); border-radius: 14px 14px 4px 14px; padding: 7px 13px; white-space: pre-wrap; }
time, .note { color: var(--soft); font-size: 12.5px; margin: 3px 0 0; } .user time { display: block; text-align: end; } .note.bad { color: var(--bad); } .notice { text-align: center; color: var(--soft); margin: 0; }
.text > * { margin: 0 0 9px; } .text > :last-child { margin-block-end: 0; } .text :is(h3, h4, h5, h6) { font-size: 16px; } .text :is(ul, ol) { padding-inline-start: 22px; } .text :is(p, li) { white-space: pre-line; }
blockquote { border-inline-start: 3px solid var(--line); padding-inline-start: 10px; color: var(--soft); }
a { color: var(--accent); } code { font: 13px ui-monospace, Menlo, Consolas, monospace; background: var(--code); border-radius: 4px; padding: 1px 4px; }
.code { position: relative; } pre { margin: 0; padding: 10px 12px; overflow: auto; max-height: 320px; background: var(--code); border-radius: 8px; } pre code { padding: 0; }
.copy { position: absolute; inset-block-start: 4px; inset-inline-end: 4px; font-size: 12px; min-height: 24px; padding: 1px 8px; }
.table { overflow-x: auto; } table { border-collapse: collapse; font-size: 14px; } :is(th, td) { border: 1px solid var(--line); padding: 4px 8px; text-align: start; }
.live[aria-busy=true] .text:empty::after { content: "…"; color: var(--soft); } .activity { display: grid; gap: 4px; font-size: 13.5px; color: var(--soft); } .activity:empty { display: none; } .activity p { margin: 0; } .activity .bad { color: var(--bad); }
details { font-size: 13.5px; color: var(--soft); white-space: pre-wrap; } summary { cursor: pointer; }
.sources { font-size: 13.5px; margin-block-start: 8px; color: var(--soft); } .sources strong { font-weight: 600; } .sources ol { margin: 3px 0 0; padding-inline-start: 22px; } .sources span { display: block; }
.card { border: 1px solid var(--warn); border-radius: 13px; background: var(--panel); padding: 11px 13px; margin-block-start: 8px; } .card h3 { margin: 0 0 5px; font-size: 15px; color: var(--warn); } .card p { margin: 0 0 9px; white-space: pre-wrap; }
.card.settled { border-color: var(--hair); } .card.settled h3 { color: var(--soft); font-size: 13.5px; } .card.settled p { margin: 0; color: var(--soft); font-size: 13.5px; }
.card label { display: block; margin-block-end: 8px; } .card fieldset { border: 0; padding: 0; margin: 0 0 9px; min-width: 0; } .card legend { font-weight: 600; padding: 0; margin-block-end: 4px; } .card .choice { display: flex; gap: 8px; align-items: baseline; }
.card small { color: var(--soft); display: block; } .card .error { color: var(--bad); font-size: 13px; margin: 2px 0; } .card .error:empty { display: none; }
:is(.card, .chats) input:is([type=text], [type=email], [type=tel]) { width: 100%; border: 1px solid var(--line); border-radius: 8px; background: var(--page); padding: 6px 9px; }
.composer { padding: 9px; background: var(--panel); border-block-start: 1px solid var(--hair); } :host([data-mode=page]) .composer { border: 1px solid var(--hair); border-radius: 14px 14px 0 0; }
.composer form { display: flex; align-items: flex-end; gap: 5px; } textarea { flex: 1; min-width: 0; max-height: 150px; resize: none; border: 1px solid var(--line); border-radius: 11px; background: var(--page); padding: 7px 10px; } textarea::placeholder { color: var(--soft); opacity: 1; }
.composer button { min-height: 38px; min-width: 38px; } .files { display: flex; flex-wrap: wrap; gap: 5px; margin-block-end: 6px; } .files:empty { display: none; } .files button { font-size: 13px; } progress { width: 100%; accent-color: var(--accent); }
.dropping { outline: 3px dashed var(--accent); outline-offset: -6px; } .chats { padding: 12px; overflow: auto; flex: 1; } .chats ul { list-style: none; padding: 0; margin: 0; display: grid; gap: 7px; } .chats li { display: flex; gap: 5px; } .chats li > button:first-child { flex: 1; text-align: start; overflow-wrap: anywhere; }
:host([dir=rtl]) .send .icon { transform: scaleX(-1); }
@media (forced-colors: active) { .panel, .bubble, .badge { border: 1px solid CanvasText; } .primary { border: 2px solid ButtonText; } }
@media (prefers-reduced-motion: no-preference) { .live .text:empty::after { animation: wait 1s infinite alternate; } @keyframes wait { to { opacity: .25; } } }
`;

/** Gives a shadow root its style. @param {ShadowRoot} root */
export function dress(root) {
  const sheet = new CSSStyleSheet();
  sheet.replaceSync(CSS);
  root.adoptedStyleSheets = [sheet];
}
