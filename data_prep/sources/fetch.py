"""Files from elsewhere: a pinned URL, fetched once and verified, and datasets from the Hugging Face Hub."""

from __future__ import annotations

import os
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from fnmatch import fnmatch
from http.client import HTTPException
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from data_prep.core.files import require_space, sync_dir
from data_prep.core.fingerprint import file_hash, git_blob
from data_prep.errors import DataError
from data_prep.sources.tasks import Hub, Remote

TIMEOUT_S = 60
TRIES = 3


class Unreachable(DataError):
    """The place where data lie does not answer, or does not have them."""


def fetch(remote: Remote, folder: Path) -> Path:
    """The file at a pinned URL, from `folder` if it was fetched before. Raises DataError.

    A file enters the folder under its hash only after its content was verified.
    """
    pin = remote.sha256 or remote.git_blob
    assert pin is not None
    path = folder / f"{pin[:16]}-{Path(urlsplit(remote.url).path).name}"
    if path.exists():
        return path
    folder.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        _download(remote.url, temporary)
        digest = file_hash(temporary) if remote.sha256 else git_blob(temporary)
        if digest != pin:
            raise DataError(f"{remote.url}: the content is not what was pinned ({digest} instead of {pin})")
        temporary.rename(path)
        sync_dir(folder)
    finally:
        temporary.unlink(missing_ok=True)
    return path


def _download(url: str, path: Path) -> None:
    for attempt in range(1, TRIES + 1):
        try:
            _download_once(url, path)
            return
        except urllib.error.HTTPError as error:
            if error.code < 500 or attempt == TRIES:
                raise Unreachable(f"{url}: the server answers {error.code} {error.reason}") from error
        except (urllib.error.URLError, HTTPException, TimeoutError, ConnectionError) as error:
            if attempt == TRIES:
                raise Unreachable(f"{url}: cannot be fetched ({getattr(error, 'reason', error)})") from error
        time.sleep(2**attempt / 2)


def _download_once(url: str, path: Path) -> None:
    # The scheme is http or https (`Remote.url`), and the content is verified against its pin.
    with urllib.request.urlopen(url, timeout=TIMEOUT_S) as response, path.open("wb") as file:  # noqa: S310
        length = int(response.headers.get("Content-Length") or 0)
        require_space(path.parent, length, url)
        while block := response.read(1 << 20):
            file.write(block)
        file.flush()
        os.fsync(file.fileno())
        if length and file.tell() != length:
            raise ConnectionError(f"ended after {file.tell():,} of {length:,} bytes")


@contextmanager
def _hub(hub: Hub, verb: str) -> Iterator[None]:
    """Say in one line what the Hub's clients raise. Raises Unreachable."""
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    from datasets.exceptions import DatasetsError
    from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled

    try:
        yield
    except (OSError, ValueError, HfHubHTTPError, OfflineModeIsEnabled, DatasetsError) as error:
        reason = " ".join(str(error).split())[:300]
        raise Unreachable(f"{hub.id} at {hub.revision[:12]} cannot be {verb} from the Hub: {reason}") from error


def hub_records(hub: Hub, streaming: bool = False) -> Iterator[dict[str, Any]]:
    """Records of a dataset at one commit; no code of the dataset's is run. Raises DataError.

    streaming: read from the network as records are taken, for the first few of many.
    """
    assert hub.split is not None  # files are read by `hub_files`
    with _hub(hub, "loaded"):
        from datasets.load import load_dataset
        from datasets.utils.tqdm import disable_progress_bars

        disable_progress_bars()
        if streaming:
            yield from load_dataset(hub.id, hub.config, split=hub.split, revision=hub.revision, streaming=True)
        else:
            yield from load_dataset(hub.id, hub.config, split=hub.split, revision=hub.revision)


def hub_files(hub: Hub) -> list[Path]:
    """The files of a dataset's repository that `hub.files` names, at its commit, in that order. Raises DataError.

    They lie in the Hub's own cache, which answers without a network where they were fetched before.
    """
    with _hub(hub, "fetched"):
        from huggingface_hub import snapshot_download

        files = list(hub.files)
        folder = Path(snapshot_download(hub.id, repo_type="dataset", revision=hub.revision, allow_patterns=files))
    names = sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())
    paths: dict[str, Path] = {}
    for pattern in hub.files:
        chosen = [name for name in names if fnmatch(name, pattern)]
        if not chosen:
            raise Unreachable(f"{hub.id} at {hub.revision[:12]} has no file {pattern!r}; see its page on the Hub")
        paths |= {name: folder / name for name in chosen}
    return list(paths.values())
