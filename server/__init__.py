"""Scoregate's control plane: exports, loads, operates and watches what `fastpath` serves.

Imports run one way: `server -> fastpath`. grpc is imported only by `server.control` and
the command line; the serving process never imports pandas, scikit-learn, scipy or onnx.
"""

import os

__version__ = "0.1.0"

# onnxruntime's wheels report usage over the network and keep a database in the home directory
# unless this is set before the library is loaded. Nothing of ours sends data to anybody.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
