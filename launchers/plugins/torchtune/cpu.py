"""Patches for torchtune's recipes without CUDA, which query its memory statistics and empty its cache."""


def install() -> None:
    """Replace functions that need CUDA. The training loop is unchanged."""
    import torch

    from torchtune import training

    for name in ("empty_cache", "reset_peak_memory_stats"):  # training.cleanup_before_training
        if not hasattr(torch.cpu, name):
            setattr(torch.cpu, name, lambda *_: None)
    training.get_memory_stats = lambda device, reset_stats=True: {}  # raises on a CPU
    training.log_memory_stats = lambda *_: None
