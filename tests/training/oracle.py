"""Gradients and updates derived by hand, in NumPy float64: nothing here is shared with either route."""

import math

import numpy as np


def gelu(z):
    return z * 0.5 * (1 + np.vectorize(math.erf)(z / math.sqrt(2)))


def gelu_slope(z):
    phi = np.exp(-(z**2) / 2) / math.sqrt(2 * math.pi)
    return 0.5 * (1 + np.vectorize(math.erf)(z / math.sqrt(2))) + z * phi


def mlp_loss_and_gradients(weights, x, labels):
    """Mean cross-entropy of x → W1,b1 → GELU → W2,b2 → GELU → W3,b3, and its gradient in the order of ``weights``."""
    w1, b1, w2, b2, w3, b3 = weights
    z1 = x @ w1.T + b1
    h1 = gelu(z1)
    z2 = h1 @ w2.T + b2
    h2 = gelu(z2)
    logits = h2 @ w3.T + b3
    shifted = logits - logits.max(axis=1, keepdims=True)
    probabilities = np.exp(shifted) / np.exp(shifted).sum(axis=1, keepdims=True)
    n = len(x)
    loss = -np.log(probabilities[np.arange(n), labels]).mean()

    d3 = probabilities.copy()
    d3[np.arange(n), labels] -= 1
    d3 /= n
    d2 = d3 @ w3 * gelu_slope(z2)
    d1 = d2 @ w2 * gelu_slope(z1)
    return loss, [d1.T @ x, d1.sum(0), d2.T @ h1, d2.sum(0), d3.T @ h2, d3.sum(0)]


def clipped_by_norm(gradients, max_norm):
    norm = math.sqrt(sum((g**2).sum() for g in gradients))
    return [g * min(1.0, max_norm / (norm + 1e-6)) for g in gradients]


def adamw_step(weight, gradient, m, v, t, lr, decay):
    """AdamW as published, with PyTorch's betas and eps."""
    weight = weight * (1 - lr * decay)
    m = 0.9 * m + 0.1 * gradient
    v = 0.999 * v + 0.001 * gradient**2
    return weight - lr * (m / (1 - 0.9**t)) / (np.sqrt(v / (1 - 0.999**t)) + 1e-8), m, v


def sgd_step(weight, gradient, momentum, lr, decay):
    """SGD with momentum 0.9 and coupled decay; the first momentum is the first gradient."""
    gradient = gradient + decay * weight
    momentum = gradient if momentum is None else 0.9 * momentum + gradient
    return weight - lr * momentum, momentum


def warmup_cosine(step, warmup, total):
    if step < warmup:
        return (step + 1) / (warmup + 1)
    return 0.1 + 0.45 * (1 + math.cos(math.pi * (step - warmup) / (total - warmup)))
