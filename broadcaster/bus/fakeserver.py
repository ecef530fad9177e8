"""`python -m broadcaster.bus.fakeserver`: fakeredis over TCP on a free loopback port, which it prints.

The child of EmbeddedRedis where no redis-server is installed; it leaves when its parent does.
"""

from __future__ import annotations

import os
import threading
import time

from fakeredis import TcpFakeServer


def _leave_with(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(1.0)
    os._exit(0)


def main() -> None:
    parent = os.getppid()
    threading.Thread(target=_leave_with, args=(parent,), daemon=True).start()
    server = TcpFakeServer(("127.0.0.1", 0))
    server.daemon_threads = True
    print(server.server_address[1], flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main()
