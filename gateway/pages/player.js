/**
 * A WHEP player (RFC 9725's egress counterpart, draft-ietf-wish-whep) that does not give up easily.
 *
 *   import { Player } from "/static/player.js";
 *   const player = new Player(videoElement, "/whep/main", { token });   // a token only where the server asks for one
 *   player.addEventListener("state", ({ detail }) => ...);
 *   player.start();
 *
 * Events, each a CustomEvent; times are seconds and rates are bits per second unless a name says otherwise:
 * - `state`        {state}: "idle", "connecting", "playing", "reconnecting" or "stopped", on every change.
 * - `reconnecting` {reason, delay, status, detail, nothingArrived}: the next attempt comes in `delay` seconds. `reason` is
 *                  "lost" (a connection that played died), "unreachable" (no picture came of the answer;
 *                  `nothingArrived`: not even a byte), "refused" (HTTP `status`, with the server's `detail`) or
 *                  "unanswered" (no HTTP answer at all).
 * - `stopped`      {status, detail}: a refusal that another attempt cannot change (401, 403, 404, 406, ...).
 * - `blocked`      {}: the browser plays nothing without a gesture (it saves power, say): call video.play() in one.
 * - `viewer`       {viewer}: the public id of the session whose picture is on the screen, or null where the server
 *                  names none; once for each session.
 * - `sound`        {sound}: whether the session on the screen has sound; once for each session. The element plays it
 *                  unless it is muted, which it has to be until somebody has touched the page.
 * - `stats`        once a second: {width, height, fps, bitrate, loss, rtt, latency, freezes, framesDecoded,
 *                  framesDropped}; `loss` is a fraction, `latency` is source to screen; null means not known.
 *
 * The server is ICE-lite and its answer is complete, so the offer leaves at once, without candidates. A connection that
 * stops receiving is replaced by a new one, and its last picture stays until the new one has its first; should the
 * old one come back to life meanwhile, it stays. The session is deleted when the page goes, and made anew
 * when the page comes back from the back/forward cache.
 */

import { Failure } from "/static/failure.js";
import { ServerClock, pictureAge } from "/static/latency.js";
import { Session } from "/static/session.js";

const SETTLED = 5000; // ms of playing after which a loss is news and not one more failure
const CLOCK_AGE = 60_000; // ms after which the server's clock is asked again

/**
 * Milliseconds before an attempt, after `failures` failed ones in a row: at once (but spread, because a server that died
 * had many viewers), then about 1, 2 and 4 s, then 4 to 8 s for ever.
 */
export function retryDelay(failures, random = Math.random) {
  if (failures === 0) return 200 * random();
  if (failures <= 3) return 1000 * 2 ** (failures - 1) * (0.8 + 0.4 * random());
  return 4000 + 4000 * random();
}

export class Player extends EventTarget {
  #video;
  #endpoint;
  #token;
  #state = "idle";
  #shown = null; // the session whose picture is on the screen
  #next = null; // the session that shall replace it
  #failures = 0;
  #timer = 0;
  #clock = new ServerClock();

  constructor(video, endpoint, { token = null } = {}) {
    super();
    this.#video = video;
    this.#endpoint = endpoint;
    this.#token = token;
    this.held = false; // set it while the server says that it sends nothing, because not even the least fits
    this.sound = false; // whether what is on the screen has sound
    this.stats = null; // the last `stats` event's detail, while it plays
    addEventListener("pagehide", () => this.#leave());
    addEventListener("pageshow", (event) => {
      if (!event.persisted || this.#state === "stopped" || this.#state === "idle") return;
      this.#enter("connecting");
      this.#attempt();
    });
    document.addEventListener("visibilitychange", () => this.#shown?.forgive());
  }

  get state() {
    return this.#state;
  }

  /** The RTCPeerConnection on the screen, or the one that shall be; null when there is none. */
  get connection() {
    return (this.#shown ?? this.#next)?.pc ?? null;
  }

  start() {
    if (this.#state !== "idle" && this.#state !== "stopped") return;
    this.#failures = 0;
    this.#enter("connecting");
    this.#attempt();
  }

  stop() {
    this.stats = null;
    this.#leave();
    this.#enter("idle");
  }

  #enter(state) {
    if (this.#state === state) return;
    this.#state = state;
    this.#tell("state", { state });
  }

  #tell(type, detail) {
    this.dispatchEvent(new CustomEvent(type, { detail }));
  }

  #leave() {
    clearTimeout(this.#timer);
    this.#next?.close();
    this.#shown?.close();
    this.#next = this.#shown = null;
  }

  async #attempt() {
    clearTimeout(this.#timer);
    this.#next?.close();
    const session = new Session(this.#endpoint, this.#token);
    session.held = () => this.held && session === this.#shown;
    this.#next = session;
    session.ontrack = () => {
      if (!this.#shown) this.#put(session);
    };
    session.onpicture = () => this.#settle(session);
    session.onlost = (failure) => this.#lost(session, failure);
    session.onalive = () => this.#settle(session);
    session.onstats = (stats) => this.#report(session, stats);
    try {
      await session.open();
    } catch (error) {
      if (session !== this.#next) return;
      this.#lost(session, error instanceof Failure ? error : new Failure("unreachable", { detail: String(error) }));
    }
  }

  #put(session) {
    if (this.#video.srcObject !== session.stream) this.#video.srcObject = session.stream;
    this.#video.play().catch((error) => {
      if (error.name === "NotAllowedError") this.#tell("blocked", {});
    });
  }

  /** `session` has a picture: it is the one to watch from now on. */
  #settle(session) {
    if (session !== this.#next && session !== this.#shown) return;
    clearTimeout(this.#timer);
    if (this.#next && this.#next !== session) this.#next.close();
    if (this.#shown && this.#shown !== session) this.#shown.close();
    this.#next = null;
    this.#shown = session;
    this.#put(session);
    this.#tell("viewer", { viewer: session.viewer });
    this.sound = session.sound;
    this.#tell("sound", { sound: session.sound });
    this.#enter("playing");
    this.#clock.refresh();
  }

  #lost(session, failure) {
    if (session === this.#next) {
      session.close();
      this.#next = null;
      this.#failures += 1;
    } else if (session === this.#shown && !this.#next) {
      // The dead session stays: it holds the last picture, and it may come back.
      this.#failures = session.played > SETTLED ? 0 : this.#failures + 1;
    } else {
      return;
    }
    this.stats = null;
    if (failure.final) {
      this.#leave();
      this.#enter("stopped");
      this.#tell("stopped", { status: failure.status, detail: failure.detail });
      return;
    }
    let delay = retryDelay(this.#failures);
    if (failure.retryAfter !== null) delay = failure.retryAfter * 1000 + 500 * Math.random();
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.#attempt(), delay);
    this.#enter("reconnecting");
    const { reason, status, detail, nothingArrived } = failure;
    this.#tell("reconnecting", { reason, delay: delay / 1000, status, detail, nothingArrived });
  }

  async #report(session, stats) {
    if (session !== this.#shown) return;
    this.#clock.refresh(CLOCK_AGE);
    const latency = await pictureAge(this.#video, session.receiver, this.#clock);
    if (session !== this.#shown) return;
    this.stats = { ...stats, latency };
    this.#tell("stats", this.stats);
  }
}
