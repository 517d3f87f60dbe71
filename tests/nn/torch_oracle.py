"""Recurrent networks as PyTorch computes them on the same weights: values and gradients.

Run as a script under PyTorch it writes what tests/nn/test_torch_oracle.py compares with:

    <python with torch> tests/nn/torch_oracle.py tests/nn/data

Where ``torch.nn`` has the cell (RNN, LSTM, ``proj_size``) that module is run, over sequences of
unequal lengths as a packed sequence.  ``torch.nn`` has no peepholes, and its GRU applies the reset
gate to ``h W``, where TensorFlow's applies it to ``h``: these are TensorFlow's formulas, written
with ``torch`` operations and differentiated by autograd.

Weights are not stored: they come from a generator that is seeded with their names.
"""

from __future__ import annotations

import importlib
import sys
import zlib
from pathlib import Path

import numpy as np

BATCH, STEPS, INPUTS, UNITS, PROJECTED = 3, 5, 4, 6, 3
LENGTHS = [2, 5, 1]  # A packed sequence has no length 0.
X = np.random.RandomState(7).uniform(-1, 1, [BATCH, STEPS, INPUTS]).astype(np.float32)

# The shapes of each cell's weights by their names, as TensorFlow has them; how much is added to
# the forget gate.
_LSTM = {"kernel": [INPUTS + UNITS, 4 * UNITS], "bias": [4 * UNITS]}
_GRU = {
    "gates/kernel": [INPUTS + UNITS, 2 * UNITS],
    "gates/bias": [2 * UNITS],
    "candidate/kernel": [INPUTS + UNITS, UNITS],
    "candidate/bias": [UNITS],
}
SHAPES = {
    "basic_rnn": {"kernel": [INPUTS + UNITS, UNITS], "bias": [UNITS]},
    "basic_lstm": _LSTM,
    "lstm": _LSTM,
    "lstm_projected": {
        "kernel": [INPUTS + PROJECTED, 4 * UNITS],
        "bias": [4 * UNITS],
        "projection/kernel": [UNITS, PROJECTED],
    },
    "lstm_peepholes": {**_LSTM, **{f"w_{gate}_diag": [UNITS] for gate in "fio"}},
    "gru": _GRU,
}
FORGET_BIAS = {"basic_lstm": 1.0, "lstm": 0.5, "lstm_projected": 1.0, "lstm_peepholes": 1.0}
MODULES = ("basic_rnn", "basic_lstm", "lstm", "lstm_projected")

NAMES = [
    f"{cell}-{both}{lengths}"
    for cell in SHAPES
    for both in ("one", "both")
    for lengths in ("", "_lengths")
]


def weight(name, shape):
    """The value that a weight (or the loss's factor) of this name has."""
    seed = zlib.crc32(name.encode())
    return np.random.RandomState(seed).uniform(-0.7, 0.7, shape).astype(np.float32)


def directions(name):
    """The cells that a case has: forward, or forward and backward."""
    return ("fw", "bw") if "-both" in name else ("fw",)


# --- modules of torch.nn --------------------------------------------------------------------------


def _reordered(array, cell):
    """Gates ``i, j, f, o`` of the last axis as PyTorch's ``i, f, j, o``, or the reverse."""
    if cell == "basic_rnn":
        return array
    i, second, third, o = np.split(array, 4, -1)
    return np.concatenate([i, third, second, o], -1)


def _module(torch, cell, names):
    """The module with the weights of one or two cells."""
    proj = PROJECTED if cell == "lstm_projected" else 0
    options = dict(batch_first=True, bidirectional=len(names) == 2)
    if cell == "basic_rnn":
        module = torch.nn.RNN(INPUTS, UNITS, **options)
    else:
        module = torch.nn.LSTM(INPUTS, UNITS, proj_size=proj, **options)
    for direction in names:
        end = "_reverse" if direction == "bw" else ""
        values = {k: weight(f"{direction}/{k}", s) for k, s in SHAPES[cell].items()}
        kernel, bias = _reordered(values["kernel"], cell), _reordered(values["bias"], cell)
        if cell != "basic_rnn":
            bias[UNITS : 2 * UNITS] += FORGET_BIAS[cell]
        given = {
            "weight_ih_l0": kernel[:INPUTS].T,
            "weight_hh_l0": kernel[INPUTS:].T,
            "bias_ih_l0": bias,
            "bias_hh_l0": np.zeros_like(bias),
        }
        if proj:
            given["weight_hr_l0"] = values["projection/kernel"].T
        with torch.no_grad():
            for key, value in given.items():
                getattr(module, key + end).copy_(torch.tensor(value))
    return module


def _run_module(torch, cell, name, x):
    """The outputs, the final states, and what gives the gradients of the weights by name."""
    names = directions(name)
    module = _module(torch, cell, names)
    if name.endswith("_lengths"):
        rnn = torch.nn.utils.rnn
        packed = rnn.pack_padded_sequence(x, LENGTHS, batch_first=True, enforce_sorted=False)
        outputs, state = module(packed)
        outputs, _ = rnn.pad_packed_sequence(outputs, batch_first=True, total_length=STEPS)
    else:
        outputs, state = module(x)
    h, c = state if isinstance(state, tuple) else (state, None)
    states = []
    for k in range(len(names)):
        states += [h[k]] if c is None else [c[k], h[k]]

    def gradients():
        found = {}
        for direction in names:
            end = "_reverse" if direction == "bw" else ""

            def grad(key, end=end):
                return getattr(module, key + end).grad.numpy()

            kernel = np.concatenate([grad("weight_ih_l0").T, grad("weight_hh_l0").T])
            found[f"{direction}/kernel"] = _reordered(kernel, cell)
            found[f"{direction}/bias"] = _reordered(grad("bias_ih_l0"), cell)
            if cell == "lstm_projected":
                found[f"{direction}/projection/kernel"] = grad("weight_hr_l0").T
        return found

    return outputs, states, gradients


# --- loops of torch operations --------------------------------------------------------------------


def _gru_step(torch, w, x, state):
    (h,) = state
    joined = torch.cat([x, h], 1) @ w["gates/kernel"] + w["gates/bias"]
    r, u = torch.sigmoid(joined).split(UNITS, 1)
    candidate = torch.cat([x, r * h], 1) @ w["candidate/kernel"] + w["candidate/bias"]
    h = u * h + (1 - u) * torch.tanh(candidate)
    return h, [h]


def _peephole_step(torch, w, x, state):
    c, h = state
    joined = torch.cat([x, h], 1) @ w["kernel"] + w["bias"]
    i, j, f, o = joined.split(UNITS, 1)
    kept = torch.sigmoid(f + FORGET_BIAS["lstm_peepholes"] + w["w_f_diag"] * c) * c
    c = kept + torch.sigmoid(i + w["w_i_diag"] * c) * torch.tanh(j)
    h = torch.sigmoid(o + w["w_o_diag"] * c) * torch.tanh(c)
    return h, [c, h]


def _run_loop(torch, cell, name, x):
    """As :func:`_run_module`, step by step."""
    step, count = (_gru_step, 1) if cell == "gru" else (_peephole_step, 2)
    lengths = torch.tensor(LENGTHS if name.endswith("_lengths") else [STEPS] * BATCH)
    weights, outputs, states = {}, [], []
    for direction in directions(name):
        w = {
            k: torch.tensor(weight(f"{direction}/{k}", s), requires_grad=True)
            for k, s in SHAPES[cell].items()
        }
        weights.update({f"{direction}/{k}": v for k, v in w.items()})
        state, rows = [torch.zeros(BATCH, UNITS)] * count, [None] * STEPS
        # A shorter sequence that begins at its own end waits there with its first state.
        for t in range(STEPS) if direction == "fw" else reversed(range(STEPS)):
            within = (t < lengths)[:, None]
            output, after = step(torch, w, x[:, t], state)
            rows[t] = torch.where(within, output, 0.0)
            state = [torch.where(within, a, b) for a, b in zip(after, state, strict=True)]
        outputs.append(torch.stack(rows, 1))
        states += state
    return torch.cat(outputs, 2), states, lambda: {k: v.grad.numpy() for k, v in weights.items()}


def loss_factors(shapes):
    """What the results are weighted with in the loss that is differentiated."""
    return [weight(f"loss{i}", shape) for i, shape in enumerate(shapes)]


def values(torch, name):
    """The arrays of a case: outputs, final states, gradients of the input and the weights."""
    cell = name.split("-")[0]
    x = torch.tensor(X, requires_grad=True)
    run = _run_module if cell in MODULES else _run_loop
    outputs, states, gradients = run(torch, cell, name, x)
    results = [outputs, *states]
    factors = loss_factors([list(r.shape) for r in results])
    sum((r * torch.tensor(f)).sum() for r, f in zip(results, factors, strict=True)).backward()
    found = {f"result{i}": r.detach().numpy() for i, r in enumerate(results)}
    return {**found, "x": x.grad.numpy(), **gradients()}


def main(folder):
    torch = importlib.import_module("torch")
    arrays = {
        f"{name}:{key}": np.ascontiguousarray(array, np.float32)
        for name in NAMES
        for key, array in values(torch, name).items()
    }
    np.savez_compressed(str(Path(folder) / "torch_rnn.npz"), **arrays)


if __name__ == "__main__":
    main(sys.argv[1])
