"""The contract of the gRPC service, and the modules that protoc generates from it."""
