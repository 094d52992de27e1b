"""Worker processes for rewards: a pool with deadlines, and distribution of batches over it."""
