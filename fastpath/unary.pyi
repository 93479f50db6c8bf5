"""One unary gRPC call on one HTTP/2 stream. Nothing of it is visible from Python."""
