"""`Settings`: the bounds of a server, each a flag of `ostinato serve`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Settings:
    """How a server is run.

    Attributes:
        host, port: where it listens.
        tokens: of which every request has to name one; (): none is wanted.
        hosts: values of the Host header that are accepted, besides those of loopback; (): with
            tokens any.
        origins: pages of other addresses that may ask.
        sequences: open at the same time, of each model; their memory is reserved at once.
        idle: seconds after which a sequence without a step ends.
        queue: steps that wait to be played, in requests.
        body: bytes of a request, at most.
        steps: of a sequence, in one request.
        batch: whole sequences in one request.
        timeout: seconds in which a request has to arrive.
        connections: at the same time.
        state: the directory that keeps open sequences; None: memory alone.
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
