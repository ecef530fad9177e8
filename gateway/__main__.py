"""`python -m gateway`: signalling, pages and API on one HTTP port."""

from __future__ import annotations

import sys

from broadcaster.process import run
from broadcaster.settings import Parser, main_with_errors, own_name, port, redis_url, token
from gateway.app import GatewaySettings, serve
from gateway.whep import ice_server


def main(arguments: list[str]) -> int:
    """Run a gateway with these command line arguments and return its exit code."""
    parser = Parser(prog="beamcast gateway", description="WHEP, pages and API on one HTTP port.")
    parser.option("--host", default="127.0.0.1", help="the address to listen on; :: and 0.0.0.0 are all of them")
    parser.option("--port", port, default=8080, help="the TCP port to listen on; 0 takes a free one")
    parser.option("--redis-url", redis_url, default="redis://127.0.0.1:6379", metavar="URL", help="the Redis to use")
    parser.option("--id", default=own_name("gateway"), help="the name in the registry")
    parser.option("--token", token, many=True, help="a bearer token that may watch; without any, everybody may")
    parser.option(
        "--cors-origin", many=True, default=["*"], metavar="ORIGIN", help="a site whose pages may play from here"
    )
    parser.option(
        "--ice-server",
        ice_server,
        many=True,
        metavar="SERVER",
        help="a STUN or TURN server for players: stun:HOST:PORT or 'turn:HOST:PORT USER PASSWORD'",
    )
    options = parser.parse_args(arguments)
    settings = GatewaySettings(
        id=options.id,
        host=options.host,
        port=options.port,
        redis_url=options.redis_url,
        tokens=tuple(options.token),
        cors_origins=tuple(options.cors_origin),
        ice_servers=tuple(options.ice_server),
    )
    return run(lambda shutdown: serve(settings, shutdown), name=options.id)


if __name__ == "__main__":
    sys.exit(main_with_errors(lambda: main(sys.argv[1:])))
