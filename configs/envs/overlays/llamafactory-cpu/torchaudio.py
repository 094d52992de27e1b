"""Stands in for torchaudio, which LlamaFactory imports at start and uses only for audio models.

The wheels on the package index link CUDA and cannot be loaded beside a CPU build of torch.
"""


def __getattr__(name: str) -> object:
    if name.startswith("__"):
        raise AttributeError(name)
    raise ImportError(f"torchaudio.{name}: audio models need a CUDA environment, which has the real torchaudio")
