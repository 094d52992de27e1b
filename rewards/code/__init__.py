"""Programs in completions and the tests of rows: found, read, run against each other, compared."""
