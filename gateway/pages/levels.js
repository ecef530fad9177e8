/** Levels of a stream, ordered from the worst to the best, each with a colour that also the colour-blind tell apart. */

// Steps of viridis, which grows in lightness: order shows without any hue.
const COLOURS = ["#440154", "#46327e", "#365c8d", "#277f8e", "#1fa187", "#4ac16d", "#a0da39", "#fde725"];
export const NOTHING = "#8a8a8a";

export class Levels {
  #names = []; // "360p30", the worst first

  /** `rungs` as /api/streams gives them, the best first. A rung of n temporal layers has n levels. */
  constructor(rungs = []) {
    const shares = { 1: [1], 2: [0.6, 1], 3: [0.4, 0.6, 1] };
    const found = [];
    for (const { name, fps, bitrate, layers } of rungs) {
      (shares[layers] ?? [1]).forEach((share, layer, all) => {
        found.push({ name: levelName(name, fps / 2 ** (all.length - 1 - layer)), bitrate: bitrate * share });
      });
    }
    this.#names = found.sort((a, b) => a.bitrate - b.bitrate).map(({ name }) => name);
  }

  get names() {
    return this.#names;
  }

  /** 0 for the worst; -1 where nothing is shown, or the level is not one of these. */
  place(name) {
    return this.#names.indexOf(name);
  }

  colour(place) {
    if (place < 0) return NOTHING;
    const step = this.#names.length > 1 ? place / (this.#names.length - 1) : 1;
    return COLOURS[Math.round(step * (COLOURS.length - 1))];
  }
}

export function levelName(rung, fps) {
  return `${rung}${Number(fps.toFixed(1))}`;
}

export const rate = (bits) => (bits >= 1e6 ? `${(bits / 1e6).toFixed(2)} Mbit/s` : `${Math.round(bits / 1e3)} kbit/s`);
