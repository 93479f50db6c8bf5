"""The control port: grpcio, for operators and their tools.

Servicers are thin: convert, call, convert back. `server` assembles the port, `servicer` is the
Control service: `status`, `models`, `changes`, `history`, `watch` (with `traffic`) are its rooms,
`convert` the messages. `access` and `tokens` say who may call what, `tls` encrypts. `relay` hands
scoring calls to a loop as raw bytes, so that both doors give the same answer; `failures` turns
exceptions into gRPC status; `describe` encodes what GetModel answers.
"""
