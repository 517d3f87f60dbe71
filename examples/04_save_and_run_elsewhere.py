"""Save a model in one process and run the file in another that has never seen this script.

What it teaches:

* ``gc.save(path, sess, inputs, outputs)`` writes one file: the graph as data, the variables as
  tensors, no code. Any safetensors reader opens it;
* ``gc.load(path)`` gives a model that one calls with named inputs;
* ``python -m graphc run`` does the same from a shell, with .npy files;
* the predictions are the same to the last bit, wherever they are computed.

    python examples/04_save_and_run_elsewhere.py
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

import graphc as gc

# Another program: all that it knows is where the file is.
OTHER_PROGRAM = """
import sys
import numpy as np
import graphc as gc

path, images, result = sys.argv[1:]
model = gc.load(path)
print(model)
np.save(result, model(pixels=np.load(images)))
"""


def train_and_save(path: Path, images: np.ndarray, steps: int) -> np.ndarray:
    """Train a small network on the digits, save it, and return what it says of ``images``."""
    digits = gc.data.digits()
    gc.set_random_seed(0)
    pixels = gc.placeholder(gc.float32, [None, 64], name="pixels")
    label = gc.placeholder(gc.int64, [None], name="label")
    hidden_weights = gc.Variable(gc.random_normal([64, 48], stddev=0.18), name="hidden/weights")
    hidden_biases = gc.Variable(gc.zeros([48]), name="hidden/biases")
    hidden = gc.nn.relu(gc.matmul(pixels, hidden_weights) + hidden_biases)
    weights = gc.Variable(gc.random_normal([48, 10], stddev=0.2), name="output/weights")
    logits = gc.matmul(hidden, weights)
    probability = gc.nn.softmax(logits, name="probability")
    loss = gc.reduce_mean(
        gc.nn.sparse_softmax_cross_entropy_with_logits(labels=label, logits=logits)
    )
    update = gc.train.AdamOptimizer(0.01).minimize(loss)

    with gc.Session() as sess:
        sess.run(gc.global_variables_initializer())
        rows = digits.train.as_float().reshape(-1, 64)
        for step in range(steps):
            for batch, labels in gc.data.batches((rows, digits.train.labels), 100, seed=[0, step]):
                sess.run(update, {pixels: batch, label: labels})
        gc.save(path, sess, inputs=[pixels], outputs=[probability])
        return sess.run(probability, {pixels: images})


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--epochs", type=int, default=20, help="times through the digits")
    parser.add_argument("--folder", type=Path, help="where to write; a temporary folder if none")
    args = parser.parse_args()

    with tempfile.TemporaryDirectory() as temporary:
        folder = args.folder or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / "digits.graphc"
        test = gc.data.digits().test
        images = test.as_float().reshape(-1, 64)
        np.save(folder / "images.npy", images)

        here = train_and_save(path, images, args.epochs)
        right = np.mean(here.argmax(axis=1) == test.labels)
        print(f"this process: {right:.1%} of the test images right")
        print(f"saved {path.name}: {path.stat().st_size:,} bytes")

        names = [str(path), str(folder / "images.npy"), str(folder / "by_api.npy")]
        subprocess.run([sys.executable, "-c", OTHER_PROGRAM, *names], check=True)
        subprocess.run(
            [sys.executable, "-m", "graphc", "run", str(path),
             "--feed", f"pixels={folder / 'images.npy'}", "--out", str(folder / "by_command.npy")],
            check=True, stdout=subprocess.DEVNULL,
        )  # fmt: skip
        for title, name in (("gc.load", "by_api"), ("python -m graphc run", "by_command")):
            same = np.load(folder / f"{name}.npy").tobytes() == here.tobytes()
            print(f"another process by {title}: {'the same bits' if same else 'DIFFERENT'}")
            if not same:
                raise SystemExit(1)


if __name__ == "__main__":
    main()
