"""Run the tutorial from top to bottom and save its outputs: python docs/tutorial/execute.py

The notebook is edited without care for its outputs; this makes them anew, all of one run, and
leaves nothing in the file that tells of the machine but what the cells print.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import nbformat
from jupyter_client.kernelspec import KernelSpecManager
from jupyter_client.manager import AsyncKernelManager
from nbclient import NotebookClient
from nbformat import NotebookNode

NOTEBOOK = Path(__file__).with_name("rnn_mnist.ipynb")
KERNEL = {"display_name": "Python 3", "language": "python", "name": "python3"}


def executed(notebook: NotebookNode, folder: str | Path) -> NotebookNode:
    """Run every cell, in `folder`, and return the notebook with its outputs.

    Raises:
        nbclient.exceptions.CellExecutionError: a cell raised.
    """
    # No directories of kernels: then "python3" is the interpreter that runs this, not another one
    # that is installed under the same name.
    kernels = KernelSpecManager(kernel_dirs=[])
    manager = AsyncKernelManager(kernel_name="python3", kernel_spec_manager=kernels)
    client = NotebookClient(
        notebook, km=manager, timeout=600, resources={"metadata": {"path": str(folder)}}
    )
    return cleaned(client.execute())


def cleaned(notebook: NotebookNode) -> NotebookNode:
    """Only what a reader needs: no times, no details of the kernel, printed lines in one piece."""
    notebook.metadata = NotebookNode(
        kernelspec=NotebookNode(KERNEL), language_info=NotebookNode(name="python")
    )
    for cell in notebook.cells:
        cell.metadata = NotebookNode()
        if cell.cell_type == "code":
            cell.outputs = _joined(cell.outputs)
    return notebook


def _joined(outputs: list[NotebookNode]) -> list[NotebookNode]:
    joined: list[NotebookNode] = []
    for output in outputs:
        before = joined[-1] if joined else None
        if before and output.output_type == "stream" and before.get("name") == output.name:
            before.text += output.text
        else:
            joined.append(output)
    return joined


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        result = executed(nbformat.read(NOTEBOOK, as_version=4), folder)
    nbformat.write(result, NOTEBOOK)
