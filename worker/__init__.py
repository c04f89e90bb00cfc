"""What goes out: actors, the scheduler, destinations and gateways to outside services."""
