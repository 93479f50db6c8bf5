"""Scoregate's serving path: compiled, GIL-free, from the socket to the socket.

Each module is one room. Imports run one way:
`loop -> http2 -> scoring -> engine -> (features, routing, forest | linear | onnx) ->
(schema, plan) -> _types`. Nothing here imports `server`, grpc, protobuf, asyncio or logging.
"""
