"""Other people's models and test suites: `python -m benchmarks.studies.packages [--write PAGE]`.

Models of transformers, small and random: forward and backward pass, and the forward pass without
gradients, with and without `accelerate(model, loops=True)`, in turn on one thread. Then each suite
of tests/packages/suites.py, from its source distribution, with and without the plugin
`accelerated`. `make test-packages` makes the environment; what is not installed is left out.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import importlib.util
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from benchmarks.tables import machine_lines

import ostinato
from benchmarks import machine
from ostinato.nn import inspect

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "packages" / "ostinato" / "tests" / "packages"))
import suites  # noqa: E402 (a folder of tests)

B, T, TURNS = 2, 512, 3
SETTLED = 6  # calls, after which it is decided which loops pay
_COMMON = {"vocab_size": 64, "hidden_size": 64, "num_hidden_layers": 2, "pad_token_id": 0}
_HEADS = {"num_attention_heads": 4, "num_key_value_heads": 2, "intermediate_size": 128}
_LINEAR = {"layer_types": ["linear_attention", "full_attention"]}
_EXPERTS = {
    "num_experts": 2,
    "num_experts_per_tok": 1,
    "moe_intermediate_size": 64,
    "shared_expert_intermediate_size": 64,
}
_DELTA = {
    **_HEADS,
    **_LINEAR,
    "head_dim": 16,
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
    "linear_key_head_dim": 16,
    "linear_value_head_dim": 16,
}
_LATENT = {
    **_HEADS,
    **_LINEAR,
    "num_key_value_heads": 4,
    "kv_lora_rank": 16,
    "qk_rope_head_dim": 16,
    "qk_nope_head_dim": 16,
    "v_head_dim": 16,
    "linear_head_dim": 16,
    "linear_num_heads": 4,
}
# Class of transformers → what its configuration says beside _COMMON.
MODELS: dict[str, dict[str, Any]] = {
    "Rwkv": {"attention_hidden_size": 64, "context_length": T},
    "FalconMamba": {"state_size": 16},
    "Mamba": {"state_size": 16},
    "Jamba": {**_HEADS, "num_experts": 2, "use_mamba_kernels": False, "num_hidden_layers": 4,
              "attn_layer_period": 4, "attn_layer_offset": 2},
    "RecurrentGemma": {**_HEADS, "lru_width": 64, "attention_window_size": 128,
                       "num_hidden_layers": 3},
    "Mamba2": {"num_heads": 8, "head_dim": 16, "state_size": 16, "n_groups": 1, "chunk_size": 64},
    "Bamba": {**_HEADS, "mamba_n_heads": 8, "mamba_d_head": 16, "mamba_d_state": 16,
              "mamba_chunk_size": 64, "attn_layer_indices": [1]},
    "Zamba": {**_HEADS, "num_key_value_heads": 4, "num_hidden_layers": 6, "mamba_dt_rank": 8,
              "attn_layer_period": 3, "attn_layer_offset": 1, "use_mamba_kernels": False},
    "Zamba2": {**_HEADS, "num_key_value_heads": 4, "num_hidden_layers": 3, "mamba_d_state": 16,
               "layers_block_type": ["linear_attention", "hybrid", "linear_attention"],
               "n_mamba_heads": 8, "mamba_headdim": 16, "chunk_size": 64},
    "FalconH1": {**_HEADS, "mamba_d_ssm": 128, "mamba_n_heads": 8, "mamba_d_head": 16,
                 "mamba_d_state": 16, "mamba_chunk_size": 64},
    "GraniteMoeHybrid": {**_HEADS, "mamba_n_heads": 8, "mamba_d_head": 16, "mamba_d_state": 16,
                         "mamba_chunk_size": 64, "num_local_experts": 2, "num_experts_per_tok": 1,
                         "shared_intermediate_size": 64,
                         "layer_types": ["linear_attention", "full_attention"]},
    "NemotronH": {**_HEADS, "head_dim": 16, "ssm_state_size": 16, "mamba_num_heads": 8,
                  "mamba_head_dim": 16, "n_groups": 1, "chunk_size": 64,
                  "layers_block_type": ["linear_attention", "full_attention", "mlp"]},
    "xLSTM": {"num_blocks": 2, "num_heads": 4, "chunk_size": 64, "mode": "train",
              "autocast_kernel_dtype": "float32"},
    "Qwen3Next": {**_DELTA, **_EXPERTS},
    "Qwen3_5Text": {**_DELTA},
    "Qwen3_5MoeText": {**_DELTA, **_EXPERTS},
    "LaraMini": {**_DELTA, **_EXPERTS},
    "OlmoHybrid": {**_DELTA, "linear_num_key_heads": 4},
    "KimiLinear": {**_LATENT, "num_shared_experts": 1, "num_experts_per_token": 2,
                   "num_experts": 4, "moe_intermediate_size": 64},
    "BailingHybrid": {**_LATENT, "num_expert_group": 1, "topk_group": 1, "num_experts": 2,
                      "num_experts_per_token": 1, "moe_intermediate_size": 64},
    "MiniMax": {**_HEADS, "head_dim": 16, "block_size": 64, "num_local_experts": 2,
                "layer_types": ["linear_attention", "full_attention"]},
    "Lfm2": {**_HEADS, "layer_types": ["conv", "full_attention"]},
}  # fmt: skip
BEGIN, END = "<!-- packages -->", "<!-- /packages -->"


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--write", type=Path, help="put the tables into this page")
    arguments.add_argument("--models", nargs="*", default=[*MODELS])
    arguments.add_argument("--suites", nargs="*", default=[*suites.SUITES])
    given = arguments.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    before = machine.report()
    lines = [*model_table(given.models), "", *suite_table(given.suites)]
    text = "\n".join([*machine_lines(before, machine.state()), "", *lines])
    print(text)
    if given.write:
        old = given.write.read_text(encoding="utf-8")
        head, tail = old[: old.index(BEGIN) + len(BEGIN)], old[old.index(END) :]
        given.write.write_text(f"{head}\n{text}\n{tail}", encoding="utf-8")


def model_table(names: list[str]) -> list[str]:
    """The rows of the models."""
    if importlib.util.find_spec("transformers") is None:
        return ["transformers is not installed."]
    version = importlib.metadata.version("transformers")
    rows = [
        f"| model of transformers {version} | accelerate | first call | forward and backward "
        "| with ostinato | forward | with ostinato | loops over tensors: native |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: | --- |",
    ]
    for name in names:
        try:
            rows.append(model_row(name))
        except Exception as error:  # of a package: the row gives its message
            said = f"{type(error).__name__}: {str(error)[:80]}"
            rows.append(f"| {name} | failed: {said} | | | | | | |")
        print(rows[-1], file=sys.stderr, flush=True)
    return rows


def model_row(name: str) -> str:
    """Two equal models, one of them accelerated, take turns."""
    import transformers

    config = getattr(transformers, f"{name}Config")(**{**_COMMON, **MODELS[name]})
    make = getattr(transformers, f"{name}Model")
    torch.manual_seed(0)
    plain = make(config)
    fast = make(config)
    fast.load_state_dict(plain.state_dict())
    began = time.perf_counter()
    ostinato.accelerate(fast, loops=True)
    accelerating = time.perf_counter() - began
    tokens = torch.randint(64, (B, T))
    began = time.process_time()
    trained(fast, tokens)
    first = time.process_time() - began
    check_equal(plain, fast, tokens)
    both, alone = compared(trained, plain, fast, tokens), compared(forward, plain, fast, tokens)
    loops = [
        r for r in inspect(fast) if getattr(r, "native", None) is not None and hasattr(r, "file")
    ]
    how = f"{sum(bool(r.native) for r in loops)} of {len(loops)}"
    return (
        f"| {name} | {accelerating:.2f} s | {first:.1f} s "
        f"| {both[0] * 1e3:.0f} ms | {both[1]:.1f} × "
        f"| {alone[0] * 1e3:.0f} ms | {alone[1]:.1f} × | {how} |"
    )


def trained(model: Any, tokens: torch.Tensor) -> torch.Tensor:
    model.zero_grad()
    out = model(tokens, use_cache=False)[0]
    out.sin().mean().backward()  # squares of normalized outputs have a sum without a gradient
    return out


def forward(model: Any, tokens: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        return model(tokens, use_cache=False)[0]


def check_equal(plain: Any, fast: Any, tokens: torch.Tensor) -> None:
    """Compare outputs and gradients twice: recorded, and played again.

    Raises:
        AssertionError: they differ by more than rounding.
    """
    for _ in range(2):
        wanted, found = trained(plain, tokens), trained(fast, tokens)
        torch.testing.assert_close(found, wanted, rtol=1e-3, atol=1e-3)
        for (name, p), q in zip(plain.named_parameters(), fast.parameters(), strict=True):
            if p.grad is not None and q.grad is not None:
                error = (p.grad - q.grad).abs().max() / p.grad.abs().max().clamp(min=1e-12)
                assert error < 1e-3, f"the gradient of {name} differs by {error:.0e}"


def compared(
    run: Callable[[Any, torch.Tensor], Any], plain: Any, fast: Any, tokens: torch.Tensor
) -> tuple[float, float]:
    """The seconds of the plain model, and how much faster the other is: medians of the turns."""
    for _ in range(SETTLED):
        run(fast, tokens)
    seconds, ratios = [], []
    for _ in range(TURNS):
        took = []
        for model in (plain, fast):
            began = time.process_time()
            run(model, tokens)
            took.append(time.process_time() - began)
        seconds.append(took[0])
        ratios.append(took[0] / took[1])
    return statistics.median(seconds), statistics.median(ratios)


def suite_table(names: list[str]) -> list[str]:
    """The rows of the suites."""
    rows = [
        "| suite | tests that pass | fail with ostinato alone | known to differ | loops native "
        "| seconds | with ostinato |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for name in names:
        if importlib.util.find_spec(name) is None:
            continue
        suite = suites.SUITES[name]
        with tempfile.TemporaryDirectory() as folder:
            source = suites.unpacked(suite, Path(folder))
            plain, fast = (suites.outcome(suite, source, fast) for fast in (False, True))
        new = suites.new_failures(suite, plain, fast)
        known = fast.failed - plain.failed - new
        native, over = fast.loops or (0, 0)
        rows.append(
            f"| {suite.distribution} {importlib.metadata.version(suite.distribution)} "
            f"| {plain.passed} | {len(new)} | {len(known)} | {native} of {over} "
            f"| {plain.seconds:.0f} | {fast.seconds:.0f} |"
        )
        print(rows[-1], file=sys.stderr, flush=True)
    return rows


if __name__ == "__main__":
    main()
