"""Named tensors as safetensors, with errors that say what is wrong."""

from __future__ import annotations

import safetensors
import safetensors.torch
import torch
from torch import Tensor


def pack(tensors: dict[str, Tensor]) -> bytes:
    """The bytes of a safetensors file with these tensors."""
    return safetensors.torch.save({name: t.contiguous() for name, t in tensors.items()})


def unpack(content: bytes, where: str) -> dict[str, Tensor]:
    """The tensors of a file's content; `where` names it in errors.

    Raises:
        ValueError: it is not safetensors, or is cut short.
    """
    try:
        return safetensors.torch.load(content)
    except safetensors.SafetensorError as error:
        raise ValueError(
            f"{where} is not a whole safetensors file ({error}); copy it again, or train again"
        ) from None


def check_finite(tensors: dict[str, Tensor], where: str) -> None:
    """Refuse NaN and infinity; `where` names the tensors' origin in errors.

    Raises:
        ValueError: a value is not finite; the message names the first one.
    """
    for name, tensor in tensors.items():
        wrong = torch.nonzero(~torch.isfinite(tensor))
        if len(wrong):
            value = tensor[tuple(wrong[0])].item()
            raise ValueError(
                f"{where} has {value} in {name!r} at {wrong[0].tolist()}; wanted finite weights: "
                "the training diverged or the file was altered; train again, with a lower "
                "learning_rate or with clip_norm"
            )


def fill(net: torch.nn.Module, tensors: dict[str, Tensor], where: str) -> None:
    """Set all weights of a network; `where` names their origin in errors.

    Raises:
        ValueError: the names, shapes or types are not those of the network.
    """
    wanted = net.state_dict()
    for name in [*wanted, *tensors]:
        came = _describe(tensors.get(name))
        want = _describe(wanted.get(name))
        if came != want:
            raise ValueError(
                f"{where} has {came} for {name!r}; wanted {want}, as in the network that the "
                "configuration describes"
            )
    net.load_state_dict(tensors)


def _describe(tensor: Tensor | None) -> str:
    if tensor is None:
        return "nothing"
    return f"{str(tensor.dtype).removeprefix('torch.')}{list(tensor.shape)}"
