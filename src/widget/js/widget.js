/*
 * The loader, a classic script: `<script async src="https://EDGE/widget/v1/widget.js" data-agent="support"></script>`.
 *
 * Its URL never changes and is asked for again on every visit, so it stays small. The modules live under URLs with a digest of
 * their content and are cached for ever. Calls of the page before they have arrived are kept and made afterwards.
 */
(() => {
  'use strict';
  const RELEASE = '__RELEASE__', MODULES = __MODULES__;
  const METHODS = ['open', 'close', 'toggle', 'send', 'identify', 'configure', 'on', 'off', 'restart', 'destroy'];
  const script = document.currentScript;
  if (!script || window.Turnstream) return;
  const origin = script.src.replace(/\/widget\/v1\/.*$/, '');
  const edges = (script.dataset.edges || origin).split(',').map(edge => edge.trim().replace(/\/+$/, '')).filter(Boolean);
  const api = window.Turnstream = { calls: [] };
  for (const name of METHODS) api[name] = (...given) => { api.calls.push([name, given]); };

  // All modules are asked for at once: imports inside modules would cost a round trip for each level.
  const load = base => Promise.all(MODULES.map(name => import(`${base}/widget/v1/${RELEASE}/${name}`)));
  (async () => {
    let failure;
    for (const base of new Set([origin, ...edges])) {
      try {
        const modules = await load(base);
        return modules[MODULES.indexOf('main.js')].start(api, { ...script.dataset, edges, origin: base });
      } catch (error) { failure = error; }
    }
    console.error('Turnstream: the widget could not be loaded.', failure);
  })();
})();
