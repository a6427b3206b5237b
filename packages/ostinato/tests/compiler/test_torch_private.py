"""The private names of PyTorch: in one module, all there, and what happens without one."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from ostinato.compiler import torch_private
from sources import CORE

VERSION = tuple(int(number) for number in torch.__version__.split(".")[:2])
HOME = CORE / "compiler" / "torch_private.py"


# What PyTorch 2.6 lacks; loops run natively without them.
NEWER = {
    "torch._C._autograd._top_saved_tensors_default_hooks",
    "torch._C._dynamo.eval_frame.set_code_exec_strategy",
    "torch._C._dynamo.eval_frame._FrameExecStrategy",
    "torch._C._dynamo.eval_frame._FrameAction",
}


@pytest.mark.parametrize("name", torch_private.NAMES)
def test_this_pytorch_has_the_name(name):
    if name in NEWER and VERSION < (2, 9):
        pytest.skip("newer than this PyTorch")
    found = torch
    for part in name.split(".")[1:]:
        assert hasattr(found, part), f"PyTorch {torch.__version__} has no {name}"
        found = getattr(found, part)


def test_hooks_on_saved_tensors_are_noticed_where_pytorch_does_not_name_them():
    ask = torch_private._any_hooks
    assert ask(False) is None
    with torch.autograd.graph.saved_tensors_hooks(torch.abs, torch.abs):
        assert ask(False) not in (None, ask(False))  # others in a step are not taken for these
    assert torch.func.grad(lambda x: x.sum() if ask(False) is None else 0 * x.sum())(torch.ones(1))
    assert torch_private.hooks_are_allowed()


def private_names(source):
    """The names below torch, with a part that begins with _, that a module imports or uses."""
    for node in ast.walk(ast.parse(source)):
        names = []
        if isinstance(node, ast.Attribute):
            names = [ast.unparse(node)]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module is not None:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        for name in names:
            first, *parts = name.split(".")
            private = any(part.startswith("_") and part[:2] != "__" for part in parts)
            if first == "torch" and private and name.replace(".", "").replace("_", "").isalnum():
                yield name


def test_private_names_are_found():
    source = "import torch._C\nfrom torch.utils import _pytree as p\ntorch.x._y(torch.__version__)"
    assert sorted(private_names(source)) == ["torch._C", "torch.utils._pytree", "torch.x._y"]


def test_no_other_module_uses_private_names():
    used = {
        str(path.relative_to(CORE)): found
        for path in CORE.rglob("*.py")
        if path != HOME and (found := sorted(private_names(path.read_text("utf-8"))))
    }
    assert used == {}


def run_without(names):
    program = Path(__file__).with_name("without_names.py")
    done = subprocess.run([sys.executable, program, *names], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.process
def test_without_a_name_loops_run_in_python():
    run_without(["torch._C.DisableTorchFunction"])


@pytest.mark.slow
@pytest.mark.process
def test_without_each_name():
    run_without(torch_private.NAMES)
