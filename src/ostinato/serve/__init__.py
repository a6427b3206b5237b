"""`ostinato serve`: saved models over HTTP, on the runtime; torch is never imported.

    app.py         the routes as one table, and the ASGI application made of it
    guard.py       what stands before every route: addresses, tokens, sizes, times, access log
    protocol.py    the Open Inference Protocol v2, with Triton's extension for sequences
    sessions.py    the same sequences for people who write requests by hand; WebSocket and events
    tensors.py     the protocol's tensors as arrays, in JSON and in binary
    model.py       a saved model as tensors in, tensors out: what every task reads and answers
    sequences.py   open sequences of one model, in a pool; what is queued is played together
    journal.py     what was played, in a file, before it is answered
    models.py      the models of a server by name, and their versions
    metrics.py     what is counted
    refused.py     the error that becomes a 4xx or 5xx answer
    settings.py    bounds and flags as one value
    page.py        the page at `/`, with the files in static/
    server.py      a running server: signals, snapshots, the end
"""
