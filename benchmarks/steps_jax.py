"""The steps of `benchmarks steps` in JAX: lax.scan under jit, in the fastest of several unrolls.

`STEPS[name](size)` makes `step(weights, carry, x)`, on the weights, the carry and xs of the problem
of that name in steps.py, in their order.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks.harness import Contender
from benchmarks.peers_jax import fastest, require_jax
from benchmarks.problem import NotHereError
from benchmarks.results import Absent

if TYPE_CHECKING:
    from benchmarks.steps import Problem, Size

NAME = "JAX lax.scan, jit"
FORMS = ((1, False), (4, False), (8, False))
Step = Callable[[Any, Any, Any], Any]


def contender(name: str, p: Problem, size: Size, d_ys: Any, quick: bool) -> Contender | Absent:
    """Training in JAX: the gradients of the weights."""
    try:
        jax = require_jax()
    except NotHereError as why:
        return Absent(NAME, str(why))
    step = STEPS[name](size)
    weights, init, xs, d = jax.tree.map(
        lambda t: jax.numpy.asarray(t.detach().numpy()), (p.weights, p.init, p.xs, d_ys)
    )

    def form(unroll: int, _: bool) -> Callable[[], Any]:
        @jax.jit
        def train(weights: Any, d: Any) -> Any:
            def played(weights: Any) -> Any:
                return jax.lax.scan(
                    lambda carry, x: step(weights, carry, x), init, xs, unroll=unroll
                )[1]

            return jax.vjp(played, weights)[1](d)[0]

        return lambda: jax.block_until_ready(train(weights, d))

    run, note = fastest(FORMS[:1] if quick else FORMS, form)
    return Contender(NAME, run, note.split(",")[0])


def _heads(size: Size, x: Any, W: Any) -> Any:
    return (x @ W).reshape(-1, size.heads, size.D)


def _mlstm(s: Size) -> Step:
    import jax
    import jax.numpy as jnp

    def step(weights: Any, carry: Any, x: Any) -> Any:
        *qkv, Wi, Wf = weights
        C, n, m = carry
        q, k, v = (_heads(s, x, W) for W in qkv)
        k = k / s.D**0.5
        i, f = x @ Wi, jax.nn.log_sigmoid(x @ Wf)
        new_m = jnp.maximum(f + m, i)
        i, f = jnp.exp(i - new_m), jnp.exp(f + m - new_m)
        C = f[..., None, None] * C + i[..., None, None] * v[..., :, None] * k[..., None, :]
        n = f[..., None] * n + i[..., None] * k
        below = jnp.maximum(jnp.abs((n * q).sum(-1)), jnp.exp(-new_m))
        y = jnp.einsum("bhvk,bhk->bhv", C, q) / below[..., None]
        return (C, n, new_m), y.reshape(x.shape[0], -1)

    return step


def _gla(s: Size) -> Step:
    import jax
    import jax.numpy as jnp

    def step(weights: Any, S: Any, x: Any) -> Any:
        q, k, v, a = (_heads(s, x, W) for W in weights)
        S = jax.nn.sigmoid(a)[..., None] * S + k[..., :, None] * v[..., None, :]
        return S, jnp.einsum("bhk,bhkv->bhv", q, S).reshape(x.shape[0], -1)

    return step


def _delta_net(s: Size) -> Step:
    import jax
    import jax.numpy as jnp

    def step(weights: Any, S: Any, x: Any) -> Any:
        *qkv, Wb = weights
        q, k, v = (_heads(s, x, W) for W in qkv)
        k = k / jnp.maximum(jnp.sqrt((k * k).sum(-1, keepdims=True)), 1e-12)
        new = jax.nn.sigmoid(x @ Wb)[..., None] * (v - jnp.einsum("bhkv,bhk->bhv", S, k))
        S = S + k[..., :, None] * new[..., None, :]
        return S, jnp.einsum("bhkv,bhk->bhv", S, q).reshape(x.shape[0], -1)

    return step


def _mamba2(s: Size) -> Step:
    import jax
    import jax.numpy as jnp

    def step(weights: Any, h: Any, x: Any) -> Any:
        Wu, Wb, Wc, W_dt, A, skip, bias = weights
        u, dt = _heads(s, x, Wu), jax.nn.softplus(x @ W_dt + bias)
        decay = jnp.exp(dt * -jnp.exp(A))
        into = (dt[..., None] * u)[..., None] * (x @ Wb)[:, None, None]
        h = decay[..., None, None] * h + into
        y = jnp.einsum("bhpn,bn->bhp", h, x @ Wc) + skip[:, None] * u
        return h, y.reshape(x.shape[0], -1)

    return step


def _rwkv7(s: Size) -> Step:
    import jax
    import jax.numpy as jnp

    def step(weights: Any, S: Any, x: Any) -> Any:
        r, k, v, w, a = (_heads(s, x, W) for W in weights)
        w = jnp.exp(-np.exp(-0.5) * jax.nn.sigmoid(w))
        a = jax.nn.sigmoid(a)
        kk = k / jnp.maximum(jnp.sqrt((k * k).sum(-1, keepdims=True)), 1e-12)
        old = jnp.einsum("bhvk,bhk->bhv", S, kk)
        S = S * w[:, :, None] - old[..., None] * (kk * a)[:, :, None]
        S = S + v[..., None] * (k * a)[:, :, None]
        return S, jnp.einsum("bhvk,bhk->bhv", S, r).reshape(x.shape[0], -1)

    return step


def _s6(s: Size) -> Step:
    import jax
    import jax.numpy as jnp

    def step(weights: Any, h: Any, u: Any) -> Any:
        A, W_dt, W_B, W_C, bias = weights
        dt = jax.nn.softplus(u @ W_dt + bias)
        h = jnp.exp(dt[..., None] * -jnp.exp(A)) * h
        h = h + (dt * u)[..., None] * (u @ W_B)[:, None, :]
        return h, (h * (u @ W_C)[:, None, :]).sum(-1)

    return step


def _bahdanau(s: Size) -> Step:
    import jax
    import jax.numpy as jnp

    def step(weights: Any, carry: Any, x: Any) -> Any:
        W, v, w_x, w_h, b_x, b_h = weights
        h, encoded, keys = carry
        places = jax.nn.softmax(jnp.tanh(keys + (h @ W)[:, None]) @ v, axis=1)
        context = jnp.einsum("bs,bsd->bd", places, encoded)
        x_r, x_z, x_n = jnp.split(jnp.concatenate([x, context], -1) @ w_x.T + b_x, 3, 1)
        h_r, h_z, h_n = jnp.split(h @ w_h.T + b_h, 3, 1)
        z = jax.nn.sigmoid(x_z + h_z)
        new = jnp.tanh(x_n + jax.nn.sigmoid(x_r + h_r) * h_n)
        h = new + z * (h - new)
        return (h, encoded, keys), h

    return step


def _crf(s: Size) -> Step:
    import jax

    def step(weights: Any, alpha: Any, emission: Any) -> Any:
        (transitions,) = weights
        alpha = jax.nn.logsumexp(alpha[:, :, None] + transitions, axis=1) + emission
        return alpha, alpha

    return step


def _conv_lstm(s: Size) -> Step:
    import jax
    import jax.numpy as jnp

    def step(weights: Any, carry: Any, x: Any) -> Any:
        kernel, bias = weights
        h, c = carry
        gates = jax.lax.conv_general_dilated(
            jnp.concatenate([x, h], 1),
            kernel,
            (1, 1),
            "SAME",
            dimension_numbers=("NCHW", "OIHW", "NCHW"),
        )
        i, f, o, g = jnp.split(gates + bias[:, None, None], 4, 1)
        c = jax.nn.sigmoid(f) * c + jax.nn.sigmoid(i) * jnp.tanh(g)
        h = jax.nn.sigmoid(o) * jnp.tanh(c)
        return (h, c), h

    return step


STEPS: dict[str, Callable[[Size], Step]] = {
    "bahdanau": _bahdanau,
    "conv_lstm": _conv_lstm,
    "crf": _crf,
    "delta_net": _delta_net,
    "gla": _gla,
    "mamba2": _mamba2,
    "mlstm": _mlstm,
    "rwkv7": _rwkv7,
    "s6": _s6,
}
