"""The helpers of the goldens' decoders, of JAX or of contrib, as in `hand_cells.py`."""

from typing import Any

from . import trees
from .hand_cells import Library

Case = dict[str, Any]
END, VOCAB, DEPTH, UNITS = 1, 6, 3, 4


def functions(xp: Library, case: Case, given: dict[str, Any]) -> dict[str, Any]:
    """The functions among the arguments, by the argument."""

    def squares(labels: Any, logits: Any) -> Any:
        wanted = xp.one_hot(labels, VOCAB, dtype=logits.dtype)
        return xp.sum((logits - wanted) ** 2, axis=-1)

    named = {
        "lookup": lambda ids: xp.take(given["table"], ids, axis=0),
        "narrow": lambda outputs: outputs[:, :DEPTH],
        "squares": squares,
    }
    return {k: named[name] for k, name in case["functions"].items() if name in named}


def options(xp: Library, case: Case, given: dict[str, Any]) -> tuple[Any, Any]:
    """Keyword arguments of the helper or of the beam search, and the embedding."""
    found = {**case["helper_options"], **functions(xp, case, given)}
    return found, found.pop("embedding", given.get("table"))


def helper(xp: Library, case: Case, given: dict[str, Any]) -> Any:
    """The case's helper."""
    name, (found, embedding) = case["helper"], options(xp, case, given)
    make = getattr(xp, name)
    if name == "CustomHelper":
        return make(*_custom(xp, given["start"], given["table"]))
    if name == "InferenceHelper":
        size = case["cells"]["kwargs"]["num_units"]
        ends = lambda x: x[:, 0] > 0.2
        facts = [size], xp.dtype(case["dtype"]), given["first"], ends
        return make(lambda x: x, *facts, **found)
    if name.startswith(("Scheduled", "Sample")):
        found |= xp.random
    if not name.endswith("TrainingHelper"):
        return make(embedding, given["start"], END, **found)
    if embedding is not None:
        found["embedding"] = embedding
    if "auxiliary" in given:
        found["auxiliary_inputs"] = given["auxiliary"]
    return make(given["inputs"], given["lengths"], **found)


def _custom(xp: Library, start: Any, table: Any) -> tuple[Any, Any, Any]:
    """Ids that depend on the time; rows end one after another; the state is halved."""
    lookup = lambda ids: xp.take(table, ids, axis=0)

    def sample(time: Any, outputs: Any, state: Any) -> Any:
        return (xp.astype(xp.argmax(outputs, -1), "int32") + time) % VOCAB

    def next_inputs(time: Any, outputs: Any, state: Any, sample_ids: Any) -> Any:
        half = trees.map_leaves(lambda _, x: x / 2, state)
        return start < time + 2, lookup(sample_ids), half

    return lambda: (start < 1, lookup(start)), sample, next_inputs


def plain(tree: Any) -> Any:
    """The tree with dicts for named tuples, but for the states of LSTMs.

    Histories and memories are left out.
    """
    if hasattr(tree, "_fields") and type(tree).__name__ != "LSTMStateTuple":
        tree = tree._asdict()
        tree.pop("alignment_history", None)
        tree.pop("memory", None)
    if isinstance(tree, dict):
        return {key: plain(part) for key, part in tree.items()}
    if isinstance(tree, tuple):
        parts = [plain(part) for part in tree]
        return type(tree)(*parts) if hasattr(tree, "_fields") else tuple(parts)
    return tree
