"""What an editor lists for a call: `python tests/package/completion.py`, with Jedi.

Jedi (`pip install jedi`) reads the sources as an editor does, without importing them.
The script fails if the completion of a call lacks a parameter of its signature, or if
`help` of a module does not begin with its own text. Flax's own parameters are exempt.
"""

import inspect
import pathlib
import pydoc
import sys

import jaxrnn
import jaxrnn.linen
import jaxrnn.nnx

IMPORTS = "import jaxrnn\nimport jaxrnn.linen\nimport jaxrnn.nnx\n"
NAMES = ["RNN", "Bidirectional", "StackBidirectional", "Cell"]
CALLS = {"jaxrnn.dynamic_rnn": jaxrnn.dynamic_rnn, "jaxrnn.LSTMCell": jaxrnn.LSTMCell}
for library in (jaxrnn.linen, jaxrnn.nnx):
    for name in NAMES:
        cls = getattr(library, name)
        CALLS[f"{library.__name__}.{name}"] = cls
        CALLS[f"{library.__name__}.{name}().__call__"] = cls.__call__
OF_FLAX = {"self", "parent", "name"}


def completed(call):
    """The parameters that Jedi lists after the opening parenthesis of a call."""
    import jedi  # No dependency of the tests, which import this file too.

    root = pathlib.Path(jaxrnn.__file__).parents[1]
    project = jedi.Project(root, environment_path=sys.executable)
    *lines, last = f"{IMPORTS}{call}(".splitlines()
    names = jedi.Script("\n".join([*lines, last]), project=project).complete(
        len(lines) + 1, len(last)
    )
    return {name.name[:-1] for name in names if name.name.endswith("=")}


def main():
    failed = False
    for call, value in CALLS.items():
        wanted = inspect.signature(value).parameters.keys() - OF_FLAX
        lacking = wanted - completed(call)
        failed |= bool(lacking)
        print(f"{call}: {len(wanted)} parameters, lacks {sorted(lacking) or 'none'}")
    for library in (jaxrnn.linen, jaxrnn.nnx):
        for name in NAMES:
            cls = getattr(library, name)
            shown = pydoc.render_doc(cls, renderer=pydoc.plaintext)
            first = inspect.getdoc(cls).splitlines()[0]
            begins = 0 < shown.find(first) < shown.find("Method resolution order")
            failed |= not begins
            print(f"help({library.__name__}.{name}): {'ours first' if begins else '?'}")
    return failed


if __name__ == "__main__":
    sys.exit(main())
