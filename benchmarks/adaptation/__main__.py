"""One case by itself: `python -m benchmarks.adaptation --trace step-3-1 --control beamcast --verbose`."""

from __future__ import annotations

import argparse
import time

from benchmarks.adaptation.baselines import CONTROLS, OURS
from benchmarks.adaptation.run import DRAWS, measure, play
from benchmarks.adaptation.score import judge, mean
from benchmarks.adaptation.traces import traces


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.adaptation")
    parser.add_argument(
        "--trace", action="append", choices=[trace.name for trace in traces()], help="which traces; all by default"
    )
    parser.add_argument("--control", action="append", choices=CONTROLS, help="who decides")
    parser.add_argument("--draw", choices=DRAWS, default="tuned", help="which random walks and seeds")
    parser.add_argument("--seed", type=int, default=None)
    parser.add_argument("--verbose", action="store_true", help="a line for each half second of the first viewer")
    options = parser.parse_args()
    draw = DRAWS[options.draw]
    seed = options.seed or draw.seeds[0]
    by_name = draw.traces(seed)
    for name in options.trace or by_name:
        for control in options.control or [OURS]:
            started = time.process_time()
            if options.verbose or options.seed is not None:
                session = play(by_name[name], control, seed)
                viewer = session.viewers[0]
                if options.verbose:
                    for sample in viewer.samples[::5]:
                        level = f"{sample.level.name}{sample.level.fps:g}" if sample.level else "paused"
                        print(
                            f"{sample.at:6.1f} {by_name[name].link.capacity.at(sample.at) / 1e6:5.2f} {level:8}"
                            f" queue {1000 * sample.waiting:5.0f} estimate {(sample.estimate or 0) / 1e6:5.2f}"
                            f" probe {sample.probe / 1e6:5.2f}"
                        )
                    for at, decision in getattr(viewer.control, "decisions", []):
                        print(f"{at:7.2f} {decision.rule} {decision.before} -> {decision.after} {decision.probe}")
                    print("freezes", [(round(at, 1), round(length, 2)) for at, length in viewer.player.freezes])
                found = mean([judge(session, viewer) for viewer in session.viewers])
            else:
                found = measure(name, control, draw)
            shown = {key: round(value, 3) if isinstance(value, float) else value for key, value in found.items()}
            print(f"{name:12} {control:14} {time.process_time() - started:4.1f} s {shown}")


if __name__ == "__main__":
    main()
