/** Latency: how old a picture is when it is shown, by the clock of the server that dated it. */

const CLOCK_QUESTIONS = 4;
const RTP_CLOCK = 90_000;

/** How far the server's clock is ahead of this page's, from the fastest of a few questions (as in NTP). */
export class ServerClock {
  #ahead = null; // ms
  #asked = -Infinity;

  /** The server's time in ms since 1970 at `at`, a time of performance.now(); null before the first answer. */
  at(at) {
    return this.#ahead === null ? null : performance.timeOrigin + at + this.#ahead;
  }

  /** Asks when the last answer is older than `age` ms. */
  async refresh(age = 1000) {
    if (performance.now() - this.#asked < age) return;
    this.#asked = performance.now();
    let fastest = Infinity;
    try {
      for (let question = 0; question < CLOCK_QUESTIONS; question++) {
        const sent = performance.now();
        const response = await fetch("/api/time", { cache: "no-store" });
        const { time } = await response.json();
        const took = performance.now() - sent;
        if (took < fastest && Number.isFinite(time)) {
          fastest = took;
          this.#ahead = time * 1000 - (performance.timeOrigin + sent + took / 2);
        }
      }
    } catch {
      // No answer: the last known offset stays, or the latency stays unknown.
    }
  }
}

/**
 * Seconds from the capture of the picture on the screen to its display, or null.
 *
 * The frame callback knows the timestamp of the very frame and when it is displayed; where it does not, the
 * receiver's last synchronization source is the nearest thing.
 */
export async function pictureAge(video, receiver, clock) {
  const frame = await nextFrame(video);
  const source = receiver?.getSynchronizationSources?.()[0];
  const timestamp = frame?.rtpTimestamp ?? source?.rtpTimestamp;
  const server = clock.at(frame?.expectedDisplayTime ?? performance.now());
  return timestamp === undefined || server === null ? null : timestampAge(timestamp, server / 1000);
}

/**
 * Seconds from the RTP `timestamp` to `now`, the server's wall clock in seconds: the timestamps of this server are that
 * clock at 90 kHz, modulo 2^32 (13 hours).
 */
export function timestampAge(timestamp, now) {
  const cycle = 2 ** 32;
  const ticks = (((Math.round(now * RTP_CLOCK) - timestamp) % cycle) + cycle) % cycle;
  // More than half a cycle means a clock that is a little off, not a picture that is half a day old.
  return ticks > cycle / 2 ? 0 : ticks / RTP_CLOCK;
}

/** The metadata of the next displayed frame, or null where the browser has none within half a second. */
function nextFrame(video) {
  if (!video.requestVideoFrameCallback) return Promise.resolve(null);
  return new Promise((resolve) => {
    const wait = setTimeout(() => resolve(null), 500);
    video.requestVideoFrameCallback((_now, metadata) => {
      clearTimeout(wait);
      resolve(metadata);
    });
  });
}
