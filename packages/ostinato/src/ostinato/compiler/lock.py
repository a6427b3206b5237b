"""The lock of the compiler, which one thread at a time holds."""

from __future__ import annotations

import os
import threading

# Held while a graph or a plan is made, and while state is used that PyTorch shares between threads.
# A fork waits until it is free: the thread that holds it does not exist in the child, where its
# work would stay half done.
one_at_a_time = threading.RLock()

if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=one_at_a_time.acquire,
        after_in_parent=one_at_a_time.release,
        after_in_child=one_at_a_time.release,
    )
