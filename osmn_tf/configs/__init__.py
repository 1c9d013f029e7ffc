"""Training configurations as YAML, usable by name: `osmn train osmn_davis --run-dir DIR`."""
