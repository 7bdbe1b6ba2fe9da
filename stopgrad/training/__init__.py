"""The training loop and what stands around it: feed (prefetch), watch (is it healthy?), checkpoints, progress."""
