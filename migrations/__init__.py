"""How the schema came to be, one step a file. `bin/migrate` takes it to the newest."""
