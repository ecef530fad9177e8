/** The page on which a person watches one stream: the player, its state in plain words, and its figures. */

import { Chart } from "/static/chart.js";
import { Player } from "/static/player.js";
import { Reasons } from "/static/reasons.js";

const UNKNOWN = "–";
const LOOPBACK = new Set(["localhost", "127.0.0.1", "[::1]"]);
const STILL = 3000; // ms without a pointer's move after which the full screen hides its controls

const $ = (id) => document.getElementById(id);
const video = $("video");
const stage = $("stage");
const stream = decodeURIComponent(location.pathname.split("/").filter(Boolean).at(-1));

document.title = `${stream} – Beamcast`;
$("title").textContent = stream;
$("dashboard").href = `/dashboard/${encodeURIComponent(stream)}`;
video.setAttribute("aria-label", `Live picture of ${stream}`);

// A token comes in the fragment, /watch/main#token=..., which a browser never sends to a server.
const token = new URLSearchParams(location.hash.slice(1)).get("token");
const player = new Player(video, `/whep/${encodeURIComponent(stream)}`, { token });
window.beamcast = { player };

// --- state -------------------------------------------------------------------------------------------------------

/** Says `title` over the picture and beside the heading; without a title the picture is free. */
function say(status, { title = "", text = "", busy = false, again = "" } = {}) {
  if ($("state").textContent !== status) $("state").textContent = status;
  $("veil").hidden = !title;
  $("veil-title").textContent = title;
  $("veil-text").textContent = text;
  $("veil-text").hidden = !text;
  $("spinner").hidden = !busy;
  $("again").hidden = !again;
  $("again").textContent = again;
}

function showState(state) {
  $("badge").hidden = state !== "playing";
  const on = state !== "idle" && state !== "stopped";
  $("toggle-text").textContent = on ? "Pause" : "Play";
  $("toggle-icon").setAttribute("d", on ? "M6 4h3v12H6zM11 4h3v12h-3z" : "M6 3.5v13l11-6.5z");
  if (state !== "playing") clearFigures();
  if (state === "connecting") say("Connecting…", { title: "Connecting…", busy: true });
  if (state === "playing" && video.paused && video.readyState > 0) showBlocked();
  else if (state === "playing") say("Playing");
  if (state === "idle") say("Paused", { title: "Paused", text: "Play goes on with what is live then." });
}

function showReconnecting({ reason, delay, status, detail, nothingArrived }) {
  const soon = delay < 1 ? "Connecting again…" : `Trying again in ${Math.round(delay)}\u00a0s.`;
  const shown = (title, text = "") => say(`${title}. ${soon}`, { title, text: `${text} ${soon}`.trim(), busy: true });
  if (status === 409) shown("The stream is not live at the moment");
  else if (status === 503) shown("The server cannot take you at the moment");
  else if (reason === "refused") shown(`The server answered with error ${status}`, detail);
  else if (reason === "unanswered") shown("The server does not answer");
  else if (reason === "lost") shown("The connection was lost");
  else shown("No picture arrives", nothingArrived ? blockedHint() : "");
}

function blockedHint() {
  if (LOOPBACK.has(location.hostname) && navigator.userAgent.includes("Firefox")) {
    return "Firefox plays from this same computer only while it is connected to a network; Chrome and Safari play without.";
  }
  return "The server answers, but no media connection comes about: a firewall or a VPN may block UDP.";
}

function showBlocked() {
  say("Ready to play", { title: "Ready to play", text: "Your browser waits for a tap.", again: "Play" });
}

function showStopped({ status, detail }) {
  const [title, text] = {
    401: ["This stream needs a token", "Open it with the link that carries one: …/watch/NAME#token=TOKEN."],
    403: ["You may not watch this stream", "Ask the person who runs this server for access."],
    404: [`There is no stream “${stream}”`, "It may have ended, or its name is spelled differently."],
    406: ["This browser cannot play the stream", "It decodes none of the stream's video formats."],
  }[status] ?? [`The server answered with error ${status}`, detail];
  say(`Stopped: ${title}.`, { title, text, again: "Try again" });
}

player.addEventListener("state", ({ detail }) => showState(detail.state));
player.addEventListener("reconnecting", ({ detail }) => showReconnecting(detail));
player.addEventListener("stopped", ({ detail }) => showStopped(detail));
player.addEventListener("blocked", showBlocked);

// --- figures -----------------------------------------------------------------------------------------------------

const rate = (bits) => (bits >= 1e6 ? `${(bits / 1e6).toFixed(2)} Mbit/s` : `${Math.round(bits / 1e3)} kbit/s`);
const frames = (fps) => `${Math.round(fps)} fps`;
const milliseconds = (seconds) => (seconds < 0.001 ? "under 1 ms" : `${Math.round(seconds * 1e3)} ms`);

const bitrateChart = new Chart($("bitrate-chart"), { name: "Bitrate", format: rate, caption: $("bitrate-range") });
const fpsChart = new Chart($("fps-chart"), { name: "Frame rate", format: frames, caption: $("fps-range") });

function write(id, value, format) {
  $(id).textContent = value === null ? UNKNOWN : format(value);
}

function clearFigures() {
  for (const cell of document.querySelectorAll(".figures dd")) cell.textContent = UNKNOWN;
}

player.addEventListener("stats", ({ detail: stats }) => {
  if (player.state !== "playing") return;
  const { width, height } = stats;
  // A portrait picture has its quality in its width: 720p is 720 lines whichever way the camera was held.
  write("quality", height, () => `${Math.min(width, height)}p`);
  write("size", height, () => `${width} × ${height}`);
  write("fps", stats.fps, frames);
  write("bitrate", stats.bitrate, rate);
  write("latency", stats.latency, milliseconds);
  write("rtt", stats.rtt, milliseconds);
  write("loss", stats.loss, (loss) => `${(loss * 100).toFixed(1)} %`);
  write("freezes", stats.freezes, String);
});

const reasons = new Reasons(stream, (sentence, paused) => {
  player.held = paused;
  if ($("why").textContent !== sentence) $("why").textContent = sentence;
});
player.addEventListener("viewer", ({ detail }) => reasons.follow(detail.viewer));

// The history goes on while nothing plays, as a gap.
setInterval(() => {
  const { bitrate = null, fps = null } = (player.state === "playing" && player.stats) || {};
  bitrateChart.add(bitrate);
  fpsChart.add(fps);
}, 1000);

// --- controls ----------------------------------------------------------------------------------------------------

$("again").addEventListener("click", () => {
  if (player.state === "stopped") player.start();
  else video.play().catch(() => {});
});
video.addEventListener("playing", () => showState(player.state));
$("toggle").addEventListener("click", () => {
  if (player.state === "idle" || player.state === "stopped") player.start();
  else player.stop();
});

// Browsers play without a gesture only what is muted, so everybody starts so and the button says what a press does.
function showSound() {
  $("sound").hidden = !player.sound;
  $("sound-text").textContent = video.muted ? "Unmute" : "Mute";
  const waves = "M12 6.2a5 5 0 0 1 0 7.6l1 1.4a6.7 6.7 0 0 0 0-10.4zM14.6 3.2l-.9 1.5a7.5 7.5 0 0 1 0 10.6l.9 1.5a9.2 9.2 0 0 0 0-13.6z";
  const cross = "M12.7 7 11.6 8.1l1.9 1.9-1.9 1.9 1.1 1.1 1.9-1.9 1.9 1.9 1.1-1.1-1.9-1.9 1.9-1.9L16.5 7l-1.9 1.9z";
  $("sound-icon").setAttribute("d", video.muted ? cross : waves);
}

player.addEventListener("sound", showSound);
video.addEventListener("volumechange", showSound);
$("sound").addEventListener("click", () => {
  video.muted = !video.muted;
  if (video.paused) video.play().catch(() => {});
});

const fullScreenElement = () => document.fullscreenElement ?? document.webkitFullscreenElement ?? null;
const enterFull = stage.requestFullscreen ?? stage.webkitRequestFullscreen;
const exitFull = document.exitFullscreen ?? document.webkitExitFullscreen;

function toggleFull() {
  if (!enterFull) video.webkitEnterFullscreen(); // iPhones know only the video's own full screen
  else if (fullScreenElement()) exitFull.call(document);
  else enterFull.call(stage);
}

if (enterFull || video.webkitEnterFullscreen) {
  $("full").hidden = false;
  $("full").addEventListener("click", toggleFull);
  video.addEventListener("dblclick", toggleFull);
  for (const type of ["fullscreenchange", "webkitfullscreenchange"]) {
    document.addEventListener(type, () => {
      $("full-text").textContent = fullScreenElement() ? "Leave full screen" : "Full screen";
    });
  }
}

let still = 0;
stage.addEventListener("pointermove", () => {
  stage.classList.remove("still");
  clearTimeout(still);
  still = setTimeout(() => stage.classList.add("still"), STILL);
});

async function togglePip() {
  try {
    if (document.pictureInPictureElement) await document.exitPictureInPicture();
    else await video.requestPictureInPicture();
  } catch {
    $("state").textContent = "Picture in picture is not possible now.";
  }
}

if (document.pictureInPictureEnabled) {
  $("pip").hidden = false;
  $("pip").addEventListener("click", togglePip);
}

player.start();
