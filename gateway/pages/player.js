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

const TICK = 250; // ms between two looks at a connection
const STATS_EVERY = 4; // ticks
const SILENCE = 1500; // ms without a byte after which a connection is dead
const SILENCE_HIDDEN = 10_000; // the same in a tab that nobody sees, whose timers and network the browser may slow
const SILENCE_HELD = 45_000; // the same while the server holds the picture back, 30 s at most at a time
const FIRST_MEDIA = 8000; // ms from the answer to the first byte
const FIRST_PICTURE = 15_000; // ms from the first byte to the first picture
const POST_DEADLINE = 5000; // ms from the offer to the answer
const SETTLED = 5000; // ms of playing after which a loss is news and not one more failure
const CLOCK_QUESTIONS = 4;
const CLOCK_AGE = 60_000; // ms after which the server's clock is asked again
const RTP_CLOCK = 90_000;
const TEMPORARY = new Set([408, 409, 425, 429]); // of the 4xx, those that time can heal

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

/** Why a connection is not there; `final` when no further attempt can help. */
class Failure extends Error {
  constructor(reason, { status = null, detail = "", retryAfter = null, nothingArrived = false } = {}) {
    super(detail || reason);
    Object.assign(this, { reason, status, detail, retryAfter, nothingArrived });
  }

  static async of(response) {
    let detail = "";
    try {
      ({ detail = "" } = await response.json());
    } catch {
      // Not problem+json (RFC 9457): the status has to say it all.
    }
    const retryAfter = retrySeconds(response.headers.get("Retry-After"));
    return new Failure("refused", { status: response.status, detail, retryAfter });
  }

  get final() {
    return this.status >= 400 && this.status < 500 && !TEMPORARY.has(this.status);
  }
}

/** Retry-After as seconds: it is a number or a date (RFC 9110 section 10.2.3). */
function retrySeconds(text) {
  if (text === null) return null;
  const seconds = /^\d+$/.test(text.trim()) ? Number(text) : (Date.parse(text) - Date.now()) / 1000;
  return Number.isFinite(seconds) ? Math.min(Math.max(seconds, 0), 60) : null;
}

/** One WHEP session and its connection, watched from its answer to its end. */
class Session {
  ontrack = () => {};
  onpicture = () => {};
  onlost = () => {};
  onalive = () => {};
  onstats = () => {};
  held = () => false;
  stream = new MediaStream();
  receiver = null; // of the pictures
  sound = false; // whether the answer has it
  played = 0; // ms
  #endpoint;
  #authorization;
  #location = null;
  #closed = false;
  #timer = 0;
  #ticks = 0;
  #looked = 0; // when the last look was taken
  #silent = 0; // ms without a byte
  #lost = false;
  viewer = null; // its public id, the one in events
  #pictured = false;
  #bytes = 0;
  #before = null; // the figures of one second ago

  constructor(endpoint, token) {
    this.#endpoint = endpoint;
    this.#authorization = token === null ? {} : { Authorization: `Bearer ${token}` };
    this.pc = new RTCPeerConnection({ bundlePolicy: "max-bundle" });
    this.pc.ontrack = ({ track, receiver }) => {
      if (track.kind === "video") this.receiver = receiver;
      else this.sound = true;
      this.stream.addTrack(track);
      this.ontrack();
    };
    this.pc.onconnectionstatechange = () => {
      if (["disconnected", "failed", "closed"].includes(this.pc.connectionState)) this.#lose();
    };
  }

  async open() {
    this.pc.addTransceiver("video", { direction: "recvonly" });
    this.pc.addTransceiver("audio", { direction: "recvonly" });
    const { type, sdp: offered } = await this.pc.createOffer();
    const offer = { type, sdp: inStereo(offered) };
    const [, response] = await Promise.all([this.pc.setLocalDescription(offer), this.#post(offer.sdp)]);
    if (response.status !== 201) throw await Failure.of(response);
    this.viewer = response.headers.get("Beamcast-Viewer");
    const location = response.headers.get("Location");
    if (location) this.#location = new URL(location, response.url).href;
    const sdp = await response.text();
    if (this.#closed) {
      this.#delete();
      return;
    }
    await this.pc.setRemoteDescription({ type: "answer", sdp });
    const transport = this.receiver?.transport;
    if (transport) {
      transport.onstatechange = () => {
        if (["closed", "failed"].includes(transport.state)) this.#lose();
      };
    }
    this.#looked = performance.now();
    this.#look();
  }

  async #post(sdp) {
    const abort = new AbortController();
    const deadline = setTimeout(() => abort.abort(), POST_DEADLINE);
    try {
      return await fetch(this.#endpoint, {
        method: "POST",
        headers: { "Content-Type": "application/sdp", ...this.#authorization },
        body: sdp,
        signal: abort.signal,
      });
    } catch (error) {
      throw new Failure("unanswered", { detail: String(error.message ?? error) });
    } finally {
      clearTimeout(deadline);
    }
  }

  close() {
    if (this.#closed) return;
    this.#closed = true;
    clearTimeout(this.#timer);
    this.#delete();
    this.pc.close();
  }

  /** Tells the server, even while the page goes away; whether it hears is its own affair. */
  #delete() {
    if (this.#location) {
      fetch(this.#location, { method: "DELETE", headers: this.#authorization, keepalive: true }).catch(() => {});
    }
    this.#location = null;
  }

  /** Starts the count of silence anew, because the browser held the tab back or lets it go again. */
  forgive() {
    this.#silent = 0;
  }

  #lose() {
    if (this.#lost || this.#closed) return;
    this.#lost = true;
    const nothingArrived = !this.#bytes;
    this.onlost(new Failure(this.#pictured ? "lost" : "unreachable", { nothingArrived }));
  }

  async #look() {
    let report;
    try {
      report = await this.pc.getStats();
    } catch {
      return; // closed meanwhile
    }
    if (this.#closed) return;
    const now = performance.now();
    // A look that comes late says that this page was held up, not that the server was silent.
    const elapsed = Math.min(now - this.#looked, 2 * TICK);
    this.#looked = now;
    const figures = read(report);
    if (figures.bytes + figures.heard > this.#bytes) {
      this.#bytes = figures.bytes + figures.heard;
      this.#silent = 0;
      if (this.#lost && this.pc.connectionState === "connected") {
        this.#lost = false;
        this.onalive();
      }
    } else {
      this.#silent += elapsed;
    }
    if (this.#bytes) this.played += elapsed;
    if (figures.framesDecoded && !this.#pictured) {
      this.#pictured = true;
      this.onpicture();
    }
    this.#judge();
    if (this.#ticks++ % STATS_EVERY === 0) {
      if (this.#before) this.onstats(between(this.#before, figures));
      this.#before = this.#pictured ? figures : null;
    }
    if (!this.#closed) this.#timer = setTimeout(() => this.#look(), this.#pictured ? TICK : TICK / 5);
  }

  #judge() {
    const patience = this.held() ? SILENCE_HELD : document.hidden ? SILENCE_HIDDEN : SILENCE;
    if (this.#silent > (this.#bytes ? patience : FIRST_MEDIA)) this.#lose();
    else if (!this.#pictured && this.played > FIRST_PICTURE) this.#lose();
  }
}

/** The offer with stereo asked for: without it Chromium and Safari play the mean of both channels (RFC 7587 section 6.1). */
export function inStereo(sdp) {
  const opus = sdp.match(/^a=rtpmap:(\d+) opus\/48000\/2\r?$/im)?.[1];
  return sdp.replace(new RegExp(`^(a=fmtp:${opus} (?!.*\\bstereo=)[^\r\n]*)`, "m"), "$1;stereo=1");
}

/** What we use of an RTCStatsReport; null for what this browser does not tell. */
function read(report) {
  let inbound = null;
  let heard = 0;
  let transport = null;
  const pairs = [];
  for (const entry of report.values()) {
    if (entry.type === "inbound-rtp" && entry.kind === "video") inbound = entry;
    else if (entry.type === "inbound-rtp") heard += entry.bytesReceived ?? 0;
    else if (entry.type === "transport") transport = entry;
    else if (entry.type === "candidate-pair") pairs.push(entry);
  }
  const pair =
    report.get(transport?.selectedCandidatePairId) ??
    pairs.find((entry) => entry.selected) ?? // Firefox
    pairs.find((entry) => entry.nominated && entry.state === "succeeded");
  return {
    at: inbound?.timestamp ?? 0, // ms
    bytes: inbound?.bytesReceived ?? 0, // of pictures
    heard, // bytes of sound
    packets: inbound?.packetsReceived ?? 0,
    lost: inbound?.packetsLost ?? 0,
    framesDecoded: inbound?.framesDecoded ?? 0,
    framesDropped: inbound?.framesDropped ?? null,
    freezes: inbound?.freezeCount ?? null,
    width: inbound?.frameWidth ?? null,
    height: inbound?.frameHeight ?? null,
    rtt: pair?.currentRoundTripTime ?? null,
  };
}

/** The figures of the time between two readings. */
function between(before, after) {
  const seconds = (after.at - before.at) / 1000;
  const lost = Math.max(after.lost - before.lost, 0); // falls when a retransmission arrives
  const due = after.packets - before.packets + lost;
  const { width, height, rtt, freezes, framesDecoded, framesDropped } = after;
  return {
    width,
    height,
    fps: seconds > 0 ? (framesDecoded - before.framesDecoded) / seconds : null,
    bitrate: seconds > 0 ? ((after.bytes - before.bytes) * 8) / seconds : null,
    loss: due > 0 ? lost / due : null,
    rtt,
    freezes,
    framesDecoded,
    framesDropped,
  };
}

/** How far the server's clock is ahead of this page's, from the fastest of a few questions (as in NTP). */
class ServerClock {
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
async function pictureAge(video, receiver, clock) {
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
