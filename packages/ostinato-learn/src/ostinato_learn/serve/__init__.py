"""`ostinato serve`: saved models over HTTP, on the runtime; torch is never imported.

app.py         the routes as one table, and the ASGI application made of it
guard.py       checks before every route: addresses, tokens, sizes, times; access log
protocol.py    the Open Inference Protocol v2, with Triton's extension for sequences
sessions.py    the same sequences for requests written by hand; WebSocket and events
tensors.py     the protocol's tensors as arrays, in JSON and in binary
model.py       a saved model as tensors in, tensors out, for every task
sequences.py   open sequences of one model, in a pool; queued steps run together
frames.py      a request for steps, what a sequence keeps of it, readers of the answers
journal.py     a file of all steps, written before they are answered
models.py      the models of a server by name, and their versions
metrics.py     the counters of the server
refused.py     the error that becomes a 4xx or 5xx answer
settings.py    bounds and flags as one value
page.py        the page at `/`, with the files in static/
server.py      a running server: signals, snapshots, the end
"""
