"""The lock under which the compiler lets one thread do a thing at a time."""

from __future__ import annotations

import os
import threading

# Held while a graph or a plan is made, and while a state is read or changed that PyTorch has once
# for all threads. A fork waits until it is free: the thread that holds it does not go on in the
# child, where what the lock protects would stay half done.
one_at_a_time = threading.RLock()

if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=one_at_a_time.acquire,
        after_in_parent=one_at_a_time.release,
        after_in_child=one_at_a_time.release,
    )
