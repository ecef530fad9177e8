/** The list of live streams: asks /api/streams every two seconds while somebody looks. */

const POLL = 2000; // ms between two questions
const PICTURE_AGE = 4000; // ms after which a card's picture is fetched anew
const ANSWER = 5000; // ms after which a question counts as unanswered

const list = document.getElementById("streams");
const empty = document.getElementById("empty");
const problem = document.getElementById("problem");
const summary = document.getElementById("summary");
const template = document.getElementById("card");

const cards = new Map(); // stream name -> Card
let timer = 0;

class Card {
  constructor(name) {
    this.name = name;
    this.item = template.content.firstElementChild.cloneNode(true);
    this.image = this.item.querySelector("img");
    this.badge = this.item.querySelector(".badge");
    this.facts = this.item.querySelector(".facts");
    this.pictured = -Infinity;
    this.item.querySelector("a").href = `/watch/${encodeURIComponent(name)}`;
    this.item.querySelector("a.viewers").href = `/dashboard/${encodeURIComponent(name)}`;
    this.item.querySelector(".name").textContent = name;
    this.image.alt = `What ${name} shows now`;
  }

  update({ live, viewers, rungs }) {
    this.badge.textContent = live ? "Live" : "Off air";
    this.badge.classList.toggle("off", !live);
    this.facts.textContent = [bestQuality(rungs), count(viewers, "viewer")].filter(Boolean).join(" · ");
    const now = performance.now();
    if (live && now - this.pictured >= PICTURE_AGE) {
      this.pictured = now;
      this.refreshPicture();
    }
  }

  /** Loads the new picture aside and shows it whole, so that the card never flickers. */
  refreshPicture() {
    const fresh = new Image();
    fresh.onload = () => {
      this.image.src = fresh.src;
      this.image.hidden = false;
    };
    fresh.src = `/api/streams/${encodeURIComponent(this.name)}/picture.jpg?t=${Date.now()}`;
  }
}

function bestQuality(rungs) {
  const best = [...(rungs ?? [])].sort((a, b) => b.height - a.height)[0];
  if (!best) return "";
  const rate = best.fps ? ` at ${Math.round(best.fps)} fps` : "";
  return `${best.height}p${rate}`;
}

function count(number, noun) {
  return `${number} ${noun}${number === 1 ? "" : "s"}`;
}

/** Writes only what changed: a live region speaks at every write. */
function say(text) {
  if (summary.textContent !== text) summary.textContent = text;
}

function show(streams) {
  const names = new Set(streams.map((stream) => stream.name));
  for (const [name, card] of cards) {
    if (!names.has(name)) {
      card.item.remove();
      cards.delete(name);
    }
  }
  const sorted = [...streams].sort((a, b) => Number(b.live) - Number(a.live) || a.name.localeCompare(b.name));
  sorted.forEach((stream, position) => {
    let card = cards.get(stream.name);
    if (!card) {
      card = new Card(stream.name);
      cards.set(stream.name, card);
    }
    card.update(stream);
    // Moving a node takes the focus from it, so only what stands in the wrong place moves.
    if (list.children[position] !== card.item) list.insertBefore(card.item, list.children[position] ?? null);
  });
  const live = streams.filter((stream) => stream.live).length;
  say(live ? `${count(live, "stream")} on the air` : "No stream is on the air");
  empty.hidden = streams.length > 0;
  problem.hidden = true;
}

async function ask() {
  const abort = new AbortController();
  const deadline = setTimeout(() => abort.abort(), ANSWER);
  try {
    const response = await fetch("/api/streams", { cache: "no-store", signal: abort.signal });
    if (!response.ok) throw new Error(`the server answered ${response.status}`);
    show((await response.json()).streams);
  } catch {
    problem.hidden = false;
    empty.hidden = true;
    say("Waiting for the server…");
  } finally {
    clearTimeout(deadline);
  }
}

async function poll() {
  clearTimeout(timer);
  const asked = ++poll.round;
  await ask();
  if (asked === poll.round && !document.hidden) timer = setTimeout(poll, POLL);
}
poll.round = 0;

document.addEventListener("visibilitychange", () => {
  if (document.hidden) clearTimeout(timer);
  else poll();
});
poll();
