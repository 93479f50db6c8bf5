"""Scoregate's control plane: exports, loads, operates and watches what `fastpath` serves.

Imports run one way: `server -> fastpath`. grpc is imported only by `server.control` and
the command line; the serving process never imports pandas, scikit-learn, scipy or onnx.
"""

__version__ = "0.1.0"
