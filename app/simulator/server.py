"""The simulator as a process: its options, its socket and its end."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gc
import os
import signal
import socket
import sys
import threading
from collections.abc import Generator
from pathlib import Path

import uvicorn
import uvloop
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from simulator import tokens
from simulator.application import Simulator
from simulator.journal import Journal

STANDARD_INPUT = 0
JOURNAL_CALLS = 100_000
BACKLOG_CONNECTIONS = 4096
# Open answers get no longer than this when the process is told to stop.
STOP_WITHIN_S = 1
# The defaults make the collector run thousands of times a second under load, and find nothing.
COLLECT_AFTER_ALLOCATIONS = 100_000


class TransportProtocol(HttpToolsProtocol):
    """Hands the connection to the application, which must be able to reset it."""

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self.scope["extensions"] = {"simulator": {"transport": self.transport}}


class Server(uvicorn.Server):
    """Says where it listens once it does, and stops at the first signal with exit status 0."""

    announcement = ""
    #: Where it listens.
    address: tuple[str, int]

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        sys.stdout.write(f"{self.announcement}\n")
        sys.stdout.flush()

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.stop)
        yield

    def stop(self) -> None:
        self.should_exit = True

    def refuse(self, seconds: float) -> None:
        """Has nobody listen for so long, and closes connections on which nothing goes on."""
        for listening in self.servers:
            listening.close()
        for connection in tuple(self.server_state.connections):
            cycle = getattr(connection, "cycle", None)
            # The answer to whoever asks for this is still to go out.
            if cycle is not None and cycle.response_complete:
                connection.transport.close()
        self._returning = asyncio.ensure_future(self._listen_again(seconds))

    async def _listen_again(self, seconds: float) -> None:
        await asyncio.sleep(seconds)
        listener = socket.create_server(self.address, backlog=BACKLOG_CONNECTIONS)

        def protocol() -> asyncio.Protocol:
            return TransportProtocol(self.config, self.server_state, self.lifespan.state)

        self.servers = [await asyncio.get_running_loop().create_server(protocol, sock=listener)]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on")
    parser.add_argument("--port", type=int, default=9000, help="0 takes a free port and prints it")
    parser.add_argument("--journal", type=Path, metavar="FILE", help="append each finished call to this file")
    parser.add_argument("--no-journal", action="store_true", help="keep no journal")
    parser.add_argument("--journal-size", type=int, default=JOURNAL_CALLS, help="calls kept in memory")
    parser.add_argument(
        "--finish-after",
        type=float,
        metavar="SECONDS",
        help="when batches, runs and other work end by themselves (default: when told to)",
    )
    parser.add_argument(
        "--quit-with-parent", action="store_true", help="stop when standard input reaches its end"
    )


def run(
    *,
    host: str,
    port: int,
    journal: Path | None,
    no_journal: bool,
    journal_size: int,
    finish_after: float | None,
    quit_with_parent: bool,
) -> None:
    """Serve until told to stop.

    Raises:
        OSError: the address is taken or isn't ours.
    """
    tokens.load_vocabularies()
    listener = socket.create_server((host, port), backlog=BACKLOG_CONNECTIONS)
    kept = Journal(size=0 if no_journal else journal_size, file=journal)
    application = Simulator(kept, finish_after_s=finish_after)
    config = uvicorn.Config(
        application,
        http=TransportProtocol,
        loop="uvloop",
        lifespan="off",
        ws="websockets-sansio",
        log_level="warning",
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=75,
        timeout_graceful_shutdown=STOP_WITHIN_S,
    )
    server = Server(config)
    server.address = (host, listener.getsockname()[1])
    server.announcement = f"simulator listening on http://{host}:{server.address[1]}/v1"
    application.refuse = server.refuse
    if quit_with_parent:
        threading.Thread(target=_stop_at_end_of_input, args=(server,), daemon=True).start()
    gc.collect()
    gc.freeze()
    gc.set_threshold(COLLECT_AFTER_ALLOCATIONS, 50, 50)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(server.serve(sockets=[listener]))


def _stop_at_end_of_input(server: Server) -> None:
    # Not sys.stdin: its lock, held by a waiting thread, breaks the interpreter's end.
    while os.read(STANDARD_INPUT, 4096):
        pass
    server.stop()
