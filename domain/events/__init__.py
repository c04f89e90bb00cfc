"""Events: their schemas, and the validation of payloads against them."""
