"""A notebook with a kernel of its own: progress in a line, results as HTML, interrupts."""

from __future__ import annotations

import pytest

CELLS = ("""
import ipucnn
ipucnn.shapes("photos", per_class=4, size=40)
def every_second(row):
    return row["kind"] == "epoch" and row["epoch"] == 2
result = ipucnn.train(model="resnet8-cifar", data="image_folder", data_dir="photos", input_size=32,
                      batch_size=8, epoch=3, backend="torch", precision="full", lr=0.05,
                      validation_mode="none", checkpoint_path="trained", callbacks=every_second)
result
""", """
model = ipucnn.load("trained", backend="torch")
model.predict("photos/ring/04.jpg", top_k=2)
""", """
import os, signal
def interrupt(row):
    os.kill(os.getpid(), signal.SIGINT) if row["kind"] == "epoch" else None
ipucnn.restore("trained", callbacks=interrupt, progress=False).stopped_by
""", "ipucnn.run(batch_size=0)")


def test_a_notebook_shows_progress_tables_and_errors(tmp_path):
    nbformat = pytest.importorskip("nbformat")
    nbclient = pytest.importorskip("nbclient")
    pytest.importorskip("ipykernel")
    book = nbformat.v4.new_notebook(
        cells=[nbformat.v4.new_code_cell(cell.strip()) for cell in CELLS],
        metadata={"kernelspec": {"name": "python3", "display_name": "Python 3"}})
    nbclient.NotebookClient(book, timeout=120, allow_errors=True,
                            resources={"metadata": {"path": str(tmp_path)}}).execute()
    training, prediction, interrupted, refused = (cell.outputs for cell in book.cells)
    assert any(output.output_type == "display_data" for output in training)  # the line of progress
    html = training[-1].data["text/html"]
    assert "<tr><th>stopped by</th><td>callback</td></tr>" in html
    assert "<th>class</th><th>probability</th>" in prediction[-1].data["text/html"]
    assert interrupted[-1].data["text/plain"] == "'SIGINT'"
    assert refused[-1].ename == "UsageError"
