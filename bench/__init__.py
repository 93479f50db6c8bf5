"""Measures Scoregate against a bare echo of its own rooms, grpc.aio and onnxruntime.

Rules
-----
* A claim is a ratio within one run, taken from alternating repetitions; absolute numbers belong to
  the machine that is written beside them.
* The server runs on one core, the load on the other.
* A run with failed calls, or with scores that the server did not count, is no result: it fails.
* Every result file holds `targets`, the numbers that were promised, met or not.

`python -m bench` writes `bench/results/latest.json`.
"""
