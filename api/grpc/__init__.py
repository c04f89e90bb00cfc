"""The gRPC service: reservations of time, by the contract in `proto/reservation.proto`."""
