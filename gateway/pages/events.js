/** Server-sent events that go on after an answer that is an error, where a browser's EventSource gives up for good. */

const FIRST = 2000; // ms until the next attempt, doubled with each that failed
const LONGEST = 60_000;

/**
 * Calls `acts[type]` with each event of that type, and `open` and `error` as an EventSource does. Returns the function
 * that ends it.
 */
export function listen(url, { open = () => {}, error = () => {}, ...acts }) {
  let source = null;
  let timer = 0;
  let failures = 0;

  function start() {
    source = new EventSource(url);
    for (const [type, act] of Object.entries(acts)) source.addEventListener(type, act);
    source.onopen = () => {
      failures = 0;
      open();
    };
    source.onerror = () => {
      error();
      if (source.readyState !== EventSource.CLOSED) return;
      // Spread, because a gateway that was away had many listeners.
      timer = setTimeout(start, Math.min(LONGEST, FIRST * 2 ** failures) * (0.5 + Math.random()));
      failures += 1;
    };
  }

  start();
  return () => {
    clearTimeout(timer);
    source.close();
  };
}
