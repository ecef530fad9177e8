/** Figures: what a browser counts of a connection, and what that makes of the time between two looks at it. */

/** What we use of an RTCStatsReport; null for what this browser does not tell. */
export function read(report) {
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
export function between(before, after) {
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
