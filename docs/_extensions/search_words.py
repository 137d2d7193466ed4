"""Adds index entries for the words that readers search for.

Sphinx's search ranks pages by their titles, but main entries of the index come first.
"""

from docutils import nodes
from sphinx import addnodes

WORDS = {
    "getting_started": {
        "stacks-dropout-and-keys": ["dropout", "stacked layers"],
        "both-directions": ["bidirectional"],
        "run-it": ["hidden state", "last output", "many to one"],
        "train": [
            "gradient clipping",
            "double backward",
            "gradient penalty",
            "Hessian",
        ],
        "data": ["batch"],
    },
    "guide/lengths": {
        "sequence-lengths": [
            "sequence_length",
            "lengths",
            "mask",
            "masking",
            "variable length",
        ],
        "padding-and-nan": ["padding", "NaN", "NaN gradient"],
        "debug-flags": ["debug_nans", "debug_infs", "transfer_guard"],
        "masks-with-gaps": ["mask gaps", "missing steps"],
        "the-backward-direction-alone": ["backward direction", "reverse sequence"],
        "the-state-of-every-step": [
            "state every step",
            "return_states",
            "cell state all steps timesteps",
            "hidden state timesteps",
            "state after every step",
        ],
    },
    "guide/packing": {"": ["packing", "ragged"]},
    "guide/resets": {"": ["reset state", "resets", "reset episode"]},
    "guide/cells": {
        "all-cells": ["LSTM", "GRU", "RNN", "weight drop", "DropConnect"],
        "state": ["hidden state", "initial state", "trainable initial state"],
        "initializers": ["initializer", "orthogonal"],
        "custom-cells-from-a-function": ["custom cell"],
        "noise-and-keys": ["noise"],
        "a-layer-normalized-gru": ["layer-normalized GRU", "layer norm GRU"],
    },
    "guide/loops": {
        "decoders": ["decoder", "beam search", "greedy", "sampling"],
        "raw-rnn": ["while loop"],
        "cells-that-halt-adaptive-computation": [
            "adaptive computation",
            "ACT",
            "halting",
        ],
    },
    "guide/attention": {"a-cell-with-a-memory": ["attention"]},
    "guide/seq2seq": {
        "beam-search": ["beam search"],
        "training": ["seq2seq", "teacher forcing"],
    },
    "coming_from/contrib": {
        "all-cells": ["layer normalization"],
        "embeddings": ["embedding"],
    },
    "guide/recurrences": {
        "the-cells": [
            "sLSTM",
            "mLSTM",
            "xLSTM",
            "DeltaNet",
            "delta net",
            "gated delta net",
            "Gated DeltaNet",
            "delta rule",
            "linear attention",
        ],
        "choose-a-cell": ["state tracking", "parity"],
        "past-inputs-qrnn-griffin-short-convolutions": ["QRNN", "Griffin"],
        "custom-linear-recurrences": ["custom recurrence", "linear recurrence"],
        "negative-eigenvalues": ["negative eigenvalues", "allow_neg_eigval"],
    },
    "guide/speed": {
        "the-first-call": ["compile time"],
        "how-to-measure": ["benchmark", "benchmarks"],
        "native-loops-for-cpus": ["per-example gradients"],
    },
    "guide/long_sequences": {
        "memory-strategies": ["memory", "swap_memory", "checkpointing"],
        "windows": [
            "truncated backpropagation",
            "TBPTT",
            "BPTT",
            "stateful",
            "stop gradient",
            "forecasting",
        ],
    },
    "guide/weights": {
        "each-library": ["weights", "convert"],
        "onnx-models": ["load onnx", "read onnx"],
    },
    "guide/accelerators": {"": ["gpu", "tpu", "cudnn"]},
    "guide/devices": {
        "": ["sharding", "data parallel", "multi gpu", "multiple gpus"],
        "from-one-chip-to-256": ["scaling", "256 chips"],
    },
    "guide/export": {
        "": ["onnx", "tflite", "streaming"],
        "litert-any-function-float16-and-int8": ["int8", "quantization"],
        "staying-in-python": ["save model"],
    },
    "coming_from/scanned_rnn": {
        "": ["ScannedRNN", "nn.scan", "PureJaxRL"],
        "done-and-first-which-step-is-reset": ["done"],
    },
    "coming_from/tensorflow1": {"graph-session-and-dtypes": ["float64"]},
    "coming_from/pytorch": {
        "names": ["batch first"],
        "bring-a-checkpoint-two-layers-two-directions-lengths": [
            "state_dict",
            "weight norm",
            "weight drop",
        ],
    },
    "coming_from/keras": {
        "names": ["hard_sigmoid", "recurrent_activation"],
        "bring-the-weights": ["CuDNNLSTM", "CuDNNGRU"],
    },
    "coming_from/equinox": {"": ["Equinox"]},
    "coming_from/haiku": {"": ["Haiku"]},
    "api/generated/jaxrnn.LSTMCell": {"": ["LSTM"]},
    "api/generated/jaxrnn.GRUCell": {"": ["GRU"]},
    "recipes/character_language_model": {
        "": ["language model", "text generation"],
        "model-and-loss": ["embedding", "masked loss"],
        "generate-new-texts": ["temperature"],
    },
    "recipes/continuous_time_rnn": {
        "": ["neuroscience", "CTRNN"],
        "the-cell": ["noise", "Dale"],
        "fixed-points": ["fixed points", "eigenvalues"],
    },
    "recipes/missing_values": {"": ["irregular", "missing values", "uneven sampling"]},
    "recipes/mixed_precision": {"": ["mixed precision", "bfloat16"]},
    "recipes/reinforcement_learning": {
        "": ["episode", "reinforcement learning", "actor critic"]
    },
    "recipes/save_and_resume_nnx": {"": ["checkpoint", "resume", "Orbax"]},
    "recipes/speech_ctc": {"": ["CTC", "speech"]},
    "recipes/stored_states": {"": ["R2D2", "burn-in", "stored state", "replay"]},
    "recipes/sweeps": {"": ["sweep", "seeds"]},
    "recipes/system_identification": {
        "": ["system identification", "L-BFGS", "float64"]
    },
    "recipes/serving": {"": ["serving", "deployment", "stateful"]},
    "recipes/plan_a_training_step": {
        "": ["training step", "topology", "ShapeDtypeStruct"],
        "memory": ["memory_analysis"],
        "collectives": ["collectives", "all-reduce"],
    },
    "recipes/will_it_fit": {
        "": ["out of memory", "OOM", "HBM", "RESOURCE_EXHAUSTED", "TPU memory"]
    },
    "internals": {"": ["architecture", "contributing"]},
    "tutorials/letters_to_sounds": {"": ["pronunciation", "g2p"]},
    "tutorials/state_tracking": {"": ["state tracking", "parity", "formal languages"]},
}


def add_words(app: object, doctree: nodes.document) -> None:
    """Add the index entries of a page to its document tree."""
    for anchor, words in WORDS.get(app.env.docname, {}).items():
        entries = [("single", word, anchor, "main", None) for word in words]
        doctree += addnodes.index(entries=entries)


def write_again(app: object, env: object) -> set[str]:
    """The pages to rewrite in every build: Sphinx does not keep their entries."""
    return WORDS.keys() & env.found_docs


def setup(app: object) -> dict:
    """Connect the hooks."""
    app.connect("doctree-read", add_words)
    app.connect("env-updated", write_again)
    return {"parallel_read_safe": True}
