"""Sets on the Hugging Face Hub: put there with their cards, and taken from there.

What comes from the hub is a file of a stranger: it is parsed, never executed, as every set is.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from tempfile import TemporaryDirectory
from typing import Any

from ddplug.errors import MissingExtraError, OptionError
from ddplug.synthetic.card import card
from ddplug.synthetic.dataset import SyntheticSet
from ddplug.synthetic.given import AnySet, as_set
from ddplug.utils.text import one_line

__all__ = ["pull", "push"]

_FILE = "set.safetensors"


def push(
    synthetic: AnySet,
    repo: str,
    *,
    file: str = _FILE,
    license: str | None = None,
    private: bool = False,
    token: str | None = None,
    endpoint: str | None = None,
) -> str:
    """Put a set and its card on the hub, in a repository of the kind for data sets, which is made if need be.

    Args:
        synthetic: any set, or its file.
        repo: ``"you/name"``.
        file: that the set becomes there; an existing one is replaced, as is the card.
        license: identifier that the hub shows, e.g. ``"cc-by-4.0"``: that of the real data, if the set holds any.
        private: whether a repository that is made is for you alone.
        token: of your account; the one that ``hf auth login`` keeps, if not given.
        endpoint: address of another hub.

    Returns:
        The address of the commit.

    Raises:
        MissingExtraError: huggingface_hub is not installed.
        OptionError: there is no such set, or the hub refuses, or cannot be reached.

    Example:
        >>> push(synthetic, "me/mnist-8kB", license="cc-by-sa-3.0")  # doctest: +SKIP
        'https://huggingface.co/datasets/me/mnist-8kB/commit/...'
    """
    synthetic, library = as_set(synthetic), _library()
    api = library.HfApi(endpoint=endpoint, token=token)
    head = [
        "---",
        *([f"license: {license}"] if license else []),
        "tags:",
        "- dataset-distillation",
        "- ddplug",
        "---",
        "",
    ]
    files = {"README.md": ("\n".join(head) + "\n" + _card(synthetic, repo, file)).encode()}
    with TemporaryDirectory() as folder:
        synthetic.save(f"{folder}/set")
        with open(f"{folder}/set", "rb") as made:
            files[file] = made.read()
    operations = [library.CommitOperationAdd(path, content) for path, content in files.items()]
    with _refusals(f"cannot put a set in {repo}"):
        api.create_repo(repo, repo_type="dataset", exist_ok=True, private=private)
        commit = api.create_commit(repo, operations, commit_message=f"Add {file}", repo_type="dataset")
    return str(commit.commit_url)


def pull(
    repo: str,
    *,
    file: str = _FILE,
    revision: str | None = None,
    token: str | None = None,
    endpoint: str | None = None,
) -> SyntheticSet:
    """Take a set from the hub; what was taken before is found again without a network.

    Args:
        repo: ``"them/name"``.
        file: the set's name there.
        revision: branch, tag or commit; name a commit to get the same set always.
        token: of your account, for what is private; the one that ``hf auth login`` keeps, if not given.
        endpoint: address of another hub.

    Returns:
        The set, on the CPU.

    Raises:
        MissingExtraError: huggingface_hub is not installed.
        OptionError: there is no such repository, file or revision, or the hub cannot be reached.
        FormatError: the file is no whole and valid set.

    Example:
        >>> pull("me/mnist-8kB").nbytes  # doctest: +SKIP
        7810
    """
    library = _library()
    with _refusals(f"cannot take {file} from {repo}"):
        path = library.hf_hub_download(
            repo, file, repo_type="dataset", revision=revision, token=token, endpoint=endpoint
        )
    return SyntheticSet.load(path)


def _card(synthetic: SyntheticSet, repo: str, file: str) -> str:
    """Return the card, with the line that takes the set from the hub."""
    line = f"synthetic = ddplug.hub.pull({repo!r}{'' if file == _FILE else f', file={file!r}'})"
    return f"{card(synthetic, file)}\n## From the hub\n\n```python\nimport ddplug\n\n{line}\n```\n"


def _library() -> Any:
    try:
        import huggingface_hub
    except ImportError:
        raise MissingExtraError(
            "ddplug.hub needs huggingface_hub, which is not installed; run pip install huggingface_hub"
        ) from None
    return huggingface_hub


@contextmanager
def _refusals(what: str) -> Iterator[None]:
    """Turn what the library raises into one line."""
    try:
        yield
    except Exception as error:
        # the errors of its HTTP client are of another package in every second version
        raise OptionError(f"{what}: {one_line(error, most=300)}") from None
