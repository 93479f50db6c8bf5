"""The control port: grpcio, for operators and their tools.

Servicers are thin: convert, call, convert back. `server` assembles the port; `relay` hands scoring
calls to a loop as raw bytes, so that both doors give the same answer; `status` is GetStatus;
`failures` turns exceptions into gRPC status; `describe` encodes what GetModel answers.
"""
