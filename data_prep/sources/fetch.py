"""Files from elsewhere: a pinned URL, fetched once and verified, and datasets from the Hugging Face Hub."""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from fnmatch import fnmatch
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import urlsplit

from data_prep.core.files import require_space, whole_file
from data_prep.core.fingerprint import file_hash, git_blob
from data_prep.errors import DataError
from data_prep.sources.files import without_nan
from data_prep.sources.tasks import Hub, Remote

REQUEST: Any = {"timeout": 60, "follow_redirects": True, "headers": {"Accept-Encoding": "identity"}}
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
    with whole_file(path) as file:
        _download(remote.url, file)
        digest = file_hash(Path(file.name)) if remote.sha256 else git_blob(Path(file.name))
        if digest != pin:
            raise DataError(f"{remote.url}: the content is not what was pinned ({digest} instead of {pin})")
    return path


def _download(url: str, file: BinaryIO) -> None:
    import httpx2

    for attempt in range(1, TRIES + 1):
        file.seek(0)
        file.truncate()
        try:
            with httpx2.stream("GET", url, **REQUEST) as response:
                response.raise_for_status()
                require_space(Path(file.name).parent, int(response.headers.get("Content-Length") or 0), url)
                for block in response.iter_raw(1 << 20):
                    file.write(block)
            file.flush()
            return
        except httpx2.HTTPStatusError as error:
            status = error.response.status_code
            if status < 500 or attempt == TRIES:
                raise Unreachable(f"{url}: the server answers {status} {error.response.reason_phrase}") from error
        except httpx2.RequestError as error:
            if attempt == TRIES:
                raise Unreachable(f"{url}: cannot be fetched ({error})") from error
        time.sleep(2**attempt / 2)


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
        part: Any = {"split": hub.split, "revision": hub.revision, "streaming": streaming}
        yield from map(without_nan, load_dataset(hub.id, hub.config, **part))


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
