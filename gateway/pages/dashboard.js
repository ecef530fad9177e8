/** All viewers of one stream: their levels over time, and why they changed. Fed by /api/events, nothing is polled. */

import { listen } from "/static/events.js";
import { Levels, levelName, rate } from "/static/levels.js";

const SPAN = 300; // seconds of history
const ROWS = 60; // viewers in the table
const LOG = 40; // decisions in the list
const TOLD = 1000; // ids of events, more than are ever told again
const RENEW = 5; // seconds between two questions for the ladder
const FORGET = 10; // seconds without statistics after which a viewer is gone
const UNKNOWN = "–";

const $ = (id) => document.getElementById(id);
const stream = decodeURIComponent(location.pathname.split("/").filter(Boolean).at(-1));
document.title = `Viewers of ${stream} – Beamcast`;
$("title").textContent = stream;
$("watch").href = `/watch/${encodeURIComponent(stream)}`;

let levels = new Levels();
let asked = 0; // when the ladder was asked for
const viewers = new Map(); // id -> Viewer
const told = new Set(); // ids of the last events
const shares = []; // per second: viewers by level
const now = () => Date.now() / 1000;

class Viewer {
  constructor(id) {
    this.id = id;
    this.history = []; // {at, level}, one a second
    this.stats = {};
    this.reason = "";
    this.seen = now();
    this.row = $("row").content.firstElementChild.cloneNode(true);
    this.row.children[0].textContent = id;
  }

  /** The name of its level, "" while it is paused. */
  get level() {
    return this.history.at(-1)?.level ?? "";
  }

  get place() {
    return levels.place(this.level);
  }

  take(stats, at) {
    this.stats = stats;
    this.seen = now();
    this.history.push({ at, level: stats.rung && stats.fps ? levelName(stats.rung, stats.fps) : "" });
    while (this.history.length > SPAN + 10 || this.history[0].at < at - SPAN) this.history.shift();
    if (this.level && this.place < 0) renew();
  }

  draw(at) {
    const { stats, row } = this;
    const [, level, strip, bitrate, estimate, loss, rtt, reason] = row.children;
    write(level, this.level || "paused");
    write(bitrate, known(stats.bitrate, rate));
    write(estimate, known(stats.estimate, rate));
    write(loss, known(stats.packet_loss, (value) => `${(100 * value).toFixed(1)} %`));
    write(rtt, known(stats.rtt, (value) => `${Math.round(1000 * value)} ms`));
    write(reason, this.reason);
    const canvas = strip.firstElementChild;
    const context = canvas.getContext("2d");
    context.clearRect(0, 0, canvas.width, canvas.height);
    for (const { at: moment, level: name } of this.history) {
      context.fillStyle = levels.colour(levels.place(name));
      context.fillRect(Math.round(canvas.width - ((at - moment) * canvas.width) / SPAN) - 1, 0, 2, canvas.height);
    }
  }
}

function known(value, format) {
  return value === null || value === undefined ? UNKNOWN : format(value);
}

function write(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

function viewer(id) {
  if (!viewers.has(id)) viewers.set(id, new Viewer(id));
  return viewers.get(id);
}

// --- events ------------------------------------------------------------------------------------------------------

function decided({ ts, viewer: id, data }) {
  if (id) viewer(id).reason = data.reason || data.rule;
  const item = document.createElement("li");
  const time = document.createElement("time");
  time.textContent = new Date(1000 * ts).toLocaleTimeString();
  const who = document.createElement("strong");
  who.textContent = id ?? "the stream";
  const text = document.createElement("span");
  text.textContent = data.reason || `${data.rule}: ${data.from.rung} to ${data.to.rung}`;
  const details = document.createElement("small");
  const inputs = Object.entries(data.inputs).filter(([, value]) => value !== null);
  details.className = "muted";
  details.textContent = `${data.rule} · ${inputs.map(([name, value]) => `${name} ${Number(value.toPrecision(3))}`).join(", ")}`;
  item.append(time, " ", who, " ", text, " ", details);
  $("log").prepend(item);
  while ($("log").children.length > LOG) $("log").lastElementChild.remove();
  $("quiet").hidden = true;
}

/** What a new connection tells again is known already. */
function once(act) {
  return (event) => {
    if (event.lastEventId && told.has(event.lastEventId)) return;
    told.add(event.lastEventId);
    if (told.size > TOLD) told.delete(told.values().next().value);
    act(JSON.parse(event.data));
  };
}

function follow() {
  listen(`/api/events/${encodeURIComponent(stream)}?replay=200`, {
    stats: once(({ viewer: id, data, ts }) => viewer(id).take(data, ts)),
    adaptation: once(decided),
    left: once(({ viewer: id }) => viewers.delete(id)),
    away: () => say("Redis is away: what you see is not up to date."),
    back: () => say(""),
    open: () => say(""),
    error: () => say("The server does not answer; trying again."),
  });
}

function say(trouble) {
  $("problem").hidden = !trouble;
  $("problem").textContent = trouble;
}

// --- the picture of it, once a second ----------------------------------------------------------------------------

function tick() {
  const at = now();
  for (const [id, one] of viewers) if (at - one.seen > FORGET) viewers.delete(id);
  const counts = new Array(levels.names.length + 1).fill(0);
  for (const { place } of viewers.values()) counts[place + 1] += 1;
  shares.push({ at, counts });
  while (shares[0].at < at - SPAN) shares.shift();
  drawShares(at, counts);
  drawRows(at);
  const people = viewers.size === 1 ? "1 viewer" : `${viewers.size} viewers`;
  write($("state"), people);
}

function drawShares(at, counts) {
  const canvas = $("shares");
  const context = canvas.getContext("2d");
  const most = Math.max(1, ...shares.map(({ counts: each }) => each.reduce((sum, count) => sum + count, 0)));
  context.clearRect(0, 0, canvas.width, canvas.height);
  for (const { at: moment, counts: each } of shares) {
    const x = Math.round(canvas.width - ((at - moment) * canvas.width) / SPAN) - 2;
    let y = canvas.height;
    each.forEach((count, number) => {
      const height = (count / most) * canvas.height;
      context.fillStyle = levels.colour(number - 1);
      context.fillRect(x, y - height, 3, height);
      y -= height;
    });
  }
  const said = levels.names.map((name, place) => [name, counts[place + 1]]).filter(([, count]) => count);
  canvas.setAttribute(
    "aria-label",
    said.length ? `Viewers by level now: ${said.map(([name, count]) => `${count} at ${name}`).join(", ")}` : "No viewers",
  );
  [...$("legend").children].forEach((item) => {
    write(item.lastElementChild, String(counts[Number(item.dataset.place) + 1] ?? 0));
  });
}

function drawRows(at) {
  const wanted = $("filter").value.trim().toLowerCase();
  const all = [...viewers.values()].filter(
    (one) => !wanted || `${one.id} ${one.level} ${one.reason}`.toLowerCase().includes(wanted),
  );
  all.sort((a, b) => a.place - b.place || (b.stats.packet_loss ?? 0) - (a.stats.packet_loss ?? 0) || a.id.localeCompare(b.id));
  const shown = all.slice(0, ROWS);
  const rows = $("rows");
  shown.forEach((one, position) => {
    one.draw(at);
    if (rows.children[position] !== one.row) rows.insertBefore(one.row, rows.children[position] ?? null);
  });
  while (rows.children.length > shown.length) rows.lastElementChild.remove();
  $("nobody").hidden = viewers.size > 0;
  $("more").hidden = all.length <= ROWS;
  $("more").textContent = `${all.length - ROWS} more; the filter finds them.`;
}

function drawLegend() {
  $("legend").replaceChildren(
    ...["paused", ...levels.names].map((name, number) => {
      const item = document.createElement("li");
      const patch = document.createElement("span");
      const count = document.createElement("b");
      item.dataset.place = number - 1;
      patch.className = "patch";
      patch.style.background = levels.colour(number - 1);
      count.textContent = "0";
      item.append(patch, `${name} `, count);
      return item;
    }),
  );
}

/** Asks for the stream and its ladder; undefined when it is not on the air. */
async function find() {
  asked = now();
  const response = await fetch("/api/streams", { cache: "no-store" });
  const { streams } = await response.json();
  return streams.find(({ name }) => name === stream);
}

function arrange(rungs) {
  levels = new Levels(rungs);
  shares.length = 0; // they count by place
  drawLegend();
}

/** Somebody is at a level that the ladder did not have: its source is another, or has other rungs. */
async function renew() {
  if (now() - asked < RENEW) return;
  try {
    const found = await find();
    if (found) arrange(found.rungs);
  } catch {
    // The next statistic asks again.
  }
}

async function start() {
  try {
    const found = await find();
    if (!found) say(`There is no stream “${stream}” at the moment. Its viewers appear here when it comes on the air.`);
    arrange(found?.rungs);
    if (!found) setTimeout(start, 3000);
    else follow();
  } catch {
    say("The server does not answer; trying again.");
    setTimeout(start, 3000);
  }
}

start();
setInterval(tick, 1000);
window.beamcast = { viewers };
