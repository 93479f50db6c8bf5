"""HTTP/2 server connections with unary gRPC calls. Nothing of it is visible from Python."""
