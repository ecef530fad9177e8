/**
 * A history chart: one value over the last minute, drawn as SVG, coloured by the style sheet.
 *
 *   const chart = new Chart(svg, { name: "Bitrate", format: (value) => `${value} bit/s`, caption });
 *   chart.add(2_500_000);   // now; null leaves a gap
 *
 * The text alternative is the SVG's aria-label: the value now, the lowest and the highest. `caption`, an element,
 * shows the lowest and the highest to everybody.
 */

const SPAN = 60_000; // ms of history
const WIDTH = 300;
const HEIGHT = 60;
const DESCRIBE = 5_000; // ms between two text alternatives
const SVG = "http://www.w3.org/2000/svg";

export class Chart {
  #svg;
  #name;
  #format;
  #caption;
  #samples = []; // {at, value}, oldest first
  #line = document.createElementNS(SVG, "path");
  #area = document.createElementNS(SVG, "path");
  #described = -Infinity;

  constructor(svg, { name, format, caption }) {
    this.#svg = svg;
    this.#name = name;
    this.#format = format;
    this.#caption = caption;
    svg.setAttribute("viewBox", `0 0 ${WIDTH} ${HEIGHT}`);
    svg.setAttribute("preserveAspectRatio", "none");
    this.#area.setAttribute("class", "area");
    this.#line.setAttribute("class", "line");
    svg.append(this.#area, this.#line);
  }

  add(value, now = performance.now()) {
    this.#samples.push({ at: now, value });
    while (this.#samples[0].at < now - SPAN) this.#samples.shift();
    this.#draw(now);
  }

  #draw(now) {
    const known = this.#samples.filter(({ value }) => value !== null).map(({ value }) => value);
    if (!known.length) return;
    const low = Math.min(...known);
    const high = Math.max(...known);
    const scale = (HEIGHT - 4) / (high * 1.1 || 1);
    let line = "";
    let area = "";
    for (const run of this.#runs()) {
      const points = run.map(
        ({ at, value }) => `${(WIDTH * (1 - (now - at) / SPAN)).toFixed(1)} ${(HEIGHT - value * scale).toFixed(1)}`,
      );
      line += `M${points.join("L")}`;
      const [first, last] = [points[0], points.at(-1)].map((point) => point.split(" ")[0]);
      area += `M${first} ${HEIGHT}L${points.join("L")}L${last} ${HEIGHT}Z`;
    }
    this.#line.setAttribute("d", line);
    this.#area.setAttribute("d", area);
    this.#caption.textContent = `${this.#format(low)} to ${this.#format(high)}`;
    if (now - this.#described < DESCRIBE) return;
    this.#described = now;
    this.#svg.setAttribute(
      "aria-label",
      `${this.#name} of the last minute: now ${this.#format(known.at(-1))}, ` +
        `lowest ${this.#format(low)}, highest ${this.#format(high)}`,
    );
  }

  /** The samples in runs without a gap. */
  #runs() {
    const runs = [];
    let run = null;
    for (const sample of this.#samples) {
      if (sample.value === null) run = null;
      else if (run) run.push(sample);
      else runs.push((run = [sample]));
    }
    return runs;
  }
}
