/** Session: one WHEP session and its connection, watched from its answer to its end. A Player has one after another. */

import { Failure } from "/static/failure.js";
import { between, read } from "/static/figures.js";

const TICK = 250; // ms between two looks at a connection
const STATS_EVERY = 4; // ticks
const SILENCE = 1500; // ms without a byte after which a connection is dead
const SILENCE_HIDDEN = 10_000; // the same in a tab that nobody sees, whose timers and network the browser may slow
const SILENCE_HELD = 45_000; // the same while the server holds the picture back, 30 s at most at a time
const FIRST_MEDIA = 8000; // ms from the answer to the first byte
const FIRST_PICTURE = 15_000; // ms from the first byte to the first picture
const POST_DEADLINE = 5000; // ms from the offer to the answer

export class Session {
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
    if (this.#closed) return;
    const offer = { type, sdp: inStereo(offered) };
    const described = this.pc.setLocalDescription(offer);
    described.catch(() => {}); // told below: closed meanwhile it fails, and the server's session has to be ended first
    const response = await this.#post(offer.sdp);
    if (response.status !== 201) throw await Failure.of(response);
    this.viewer = response.headers.get("Beamcast-Viewer");
    const location = response.headers.get("Location");
    if (location) this.#location = new URL(location, response.url).href;
    const sdp = await response.text();
    if (this.#closed) {
      this.#delete();
      return;
    }
    await described;
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
