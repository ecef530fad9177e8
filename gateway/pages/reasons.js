/** Why the server changed what this viewer gets, in plain words: follows /api/events for one viewer at a time. */

import { listen } from "/static/events.js";

export class Reasons {
  #stream;
  #tell;
  #end = () => {};
  #viewer = null;

  /** `tell(sentence, paused)` is called with each new reason, and with "" when a new session begins. */
  constructor(stream, tell) {
    this.#stream = stream;
    this.#tell = tell;
  }

  /** Follow the viewer with this public id; null follows nobody. */
  follow(viewer) {
    if (viewer === this.#viewer) return;
    this.#viewer = viewer;
    this.#end();
    this.#end = () => {};
    this.#tell("", false);
    if (viewer === null) return;
    const query = new URLSearchParams({ viewer, types: "adaptation", replay: "50" });
    this.#end = listen(`/api/events/${encodeURIComponent(this.#stream)}?${query}`, {
      adaptation: (event) => {
        const { viewer: of, data } = JSON.parse(event.data);
        if (of === this.#viewer && data.reason) this.#tell(data.reason, !data.to.fps);
      },
    });
  }
}
