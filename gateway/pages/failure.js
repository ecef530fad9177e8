/** Failure: why a connection is not there; `final` when no further attempt can help. */

const TEMPORARY = new Set([408, 409, 425, 429]); // of the 4xx, those that time can heal

export class Failure extends Error {
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
