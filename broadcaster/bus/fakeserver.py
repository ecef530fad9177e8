"""`python -m broadcaster.bus.fakeserver PORT`: fakeredis over TCP on a loopback port (0: a free one), which it prints.

The child of EmbeddedRedis where no redis-server is installed; it leaves when its parent does.
"""

from __future__ import annotations

import os
import sys
import threading
import time

from fakeredis import TcpFakeServer


class _Server(TcpFakeServer):
    allow_reuse_address = True
    daemon_threads = True


def _leave_with(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(1.0)
    os._exit(0)


def main() -> None:
    parent = os.getppid()
    threading.Thread(target=_leave_with, args=(parent,), daemon=True).start()
    server = _Server(("127.0.0.1", int(sys.argv[1])))
    print(server.server_address[1], flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main()
