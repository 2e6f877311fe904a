"""Ten thousand bad requests: what strangers and broken clients send, and what each kind of it must get."""
