"""The endpoints. Each handler reads the request, begins a transaction, calls one verb of the domain and renders."""
