"""The recipes that the package brings, as TOML files by name."""
