"""PyTorch, eager and under torch.compile, with fused AdamW."""

import os
import warnings

import numpy as np
import torch
import torch.nn.functional as F

from .cases import ADAMW
from .torch_models import module

torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
warnings.filterwarnings("ignore")
RNN = {"rnn.Wxh": "rnn.weight_ih_l0", "rnn.Whh": "rnn.weight_hh_l0", "rnn.bias": "rnn.bias_ih_l0"}


def versions():
    return {"torch": torch.__version__}


def prepare(way, case, mode, weights, batch):
    """A function that takes one step, or runs one forward pass, and returns loss or output."""
    torch._dynamo.reset()
    model = _loaded(module(case), weights)
    inputs, target = [_input(case, x) for x in batch[0]], torch.from_numpy(batch[1])
    target = target if case.squared else target.long()
    model.train(mode == "train")
    compiled = torch.compile if way == "compiled" else lambda fn: fn
    return _step(case, model, compiled, inputs, target) if mode == "train" else _forward(compiled(model), inputs)


def _forward(call, inputs):
    def run():
        with torch.inference_mode():
            return call(*inputs)

    return run


def _step(case, model, compiled, inputs, target):
    objective = compiled(lambda xs, y: _loss(case, model(*xs), y))
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(
        trained, ADAMW.rate, betas=ADAMW.betas, eps=ADAMW.eps, weight_decay=ADAMW.decay, fused=True
    )

    def run():
        optimizer.zero_grad(set_to_none=True)
        loss = objective(inputs, target)
        loss.backward()
        optimizer.step()
        return loss.detach()

    return run


def _loss(case, output, target):
    if case.squared:
        return F.mse_loss(output, target)
    return F.cross_entropy(output.flatten(0, -2), target.flatten())


def _loaded(model, weights):
    """MLX's weights in PyTorch's places and layouts."""
    own = model.state_dict()
    for path, leaf in weights.items():
        tensor = own.pop(RNN.get(path, path))
        leaf = leaf.transpose(0, 3, 1, 2) if leaf.ndim == 4 else leaf
        if path == "head.weight" and hasattr(model, "conv2"):  # PyTorch flattens (channels, rows, columns)
            channels = model.conv2.out_channels
            side = int((leaf.shape[1] // channels) ** 0.5)
            leaf = leaf.reshape(-1, side, side, channels).transpose(0, 3, 1, 2).reshape(leaf.shape)
        tensor.copy_(torch.from_numpy(np.ascontiguousarray(leaf)))
    for tensor in own.values():  # the second bias of nn.RNN
        tensor.zero_()
    return model


def _input(case, x):
    if case.family == "cnn":
        return torch.from_numpy(np.ascontiguousarray(x.transpose(0, 3, 1, 2)))
    return torch.from_numpy(x).long() if case.family == "gpt" else torch.from_numpy(x)
