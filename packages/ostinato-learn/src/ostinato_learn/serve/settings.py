"""`Settings`: the bounds of a server, each a flag of `ostinato serve`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Settings:
    """The settings of a server.

    Attributes:
        host, port: the address at which it listens.
        tokens: the tokens, of which a request has to give one; (): requests need no token.
        hosts: values of the Host header that are accepted, besides those of loopback; (): if there
            are tokens, all values.
        origins: the origins of other web pages whose requests are accepted.
        sequences: the most sequences that may be open in each model; their memory is reserved at
            the start.
        idle: seconds after which a sequence without a step ends.
        queue: the most requests for steps that may wait.
        body: the most bytes of a request.
        steps: the most steps of a sequence in one request.
        batch: the most whole sequences in one request.
        timeout: seconds in which a request has to arrive.
        connections: the most connections at the same time.
        state: the directory that keeps open sequences; None: they are in memory alone.
        snapshot_every: seconds between two snapshots.
        replaced: what happens to open sequences of a model that is loaded anew: "finish" with the
            version that they began with, or "refuse".
        access_log: whether every request is written to stderr.
    """

    host: str = "127.0.0.1"
    port: int = 8000
    tokens: tuple[str, ...] = ()
    hosts: tuple[str, ...] = ()
    origins: tuple[str, ...] = ()
    sequences: int = 10_000
    idle: float = 3600.0
    queue: int = 10_000
    body: int = 64 << 20
    steps: int = 100_000
    batch: int = 10_000
    timeout: float = 30.0
    connections: int = 1000
    state: Path | None = None
    snapshot_every: float = 60.0
    replaced: str = "finish"
    access_log: bool = True
