"""The front doors. Each reads, begins, calls one verb of the domain and renders."""
