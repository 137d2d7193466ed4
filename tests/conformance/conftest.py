"""Prints how many cases of each suite passed, after the tests of this folder."""

import collections

SUITES = {
    "test_equals_lstm_ref": "jax",
    "test_node": "onnx",
    "test_contract": "sequence-layers",
    "test_published_layer": "published layers",
    "test_layer": "transformers",
    "test_rwkv7": "rwkv",
    "test_trained_g2p_en": "g2p_en",
    "test_trained_silero_vad": "silero-vad",
    "test_memory": "flash-linear-attention",
    "test_products_of_delta_steps": "flash-linear-attention",
    "test_published_kernel": "published kernels",
    "test_published_kernel_with_documents": "published kernels",
}


def pytest_terminal_summary(terminalreporter):
    counts = collections.Counter()
    for outcome in ("passed", "failed", "error", "skipped"):
        for report in terminalreporter.getreports(outcome):
            test = report.nodeid.partition("[")[0].rpartition("::")[2]
            counts[SUITES.get(test), outcome] += 1
    terminalreporter.section("suites of other projects")
    for (suite, outcome), number in counts.items():
        if suite:
            terminalreporter.write_line(f"{suite}: {number} {outcome}")
