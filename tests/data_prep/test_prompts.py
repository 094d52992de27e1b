"""Prompts: every prompt renders, and an invalid one is a one-line error that names its file."""

import pytest

from data_prep.errors import DataError
from data_prep.inference import prompts
from data_prep.sources import tasks

BROKEN = {
    "{% if %}": "Expected an expression",
    "{{ meta.__class__.__mro__ }}": "unsafe",
    "{{ nothing }}": "'nothing' is undefined",
}


def test_a_prompt_before_a_question_is_the_files_text():
    for name in tasks.prompts():
        text = (tasks.PROMPTS / f"{name}.txt").read_text("utf-8")
        render = prompts.head(name)
        said = render({"id": "r", "source": "s"})
        assert said == said.strip() != ""
        if "{" not in text:
            assert said == text.strip()
    by_kind = [prompts.head("contest")({"source": "apps", "meta": meta}) for meta in ({}, {"function": "f"})]
    assert "standard input" in by_kind[0]
    assert "It defines f as" in by_kind[1]


def _said(file):
    if file.endswith(".txt"):
        return prompts.head(file.removesuffix(".txt"))({"source": "s"})
    return prompts.render(file.removesuffix(".j2"), meta={})


@pytest.mark.parametrize("text", BROKEN)
@pytest.mark.parametrize("file", ["broken.txt", "folder/broken.j2"])
def test_an_invalid_prompt_names_its_file(tmp_path, monkeypatch, text, file):
    path = tmp_path / file
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    monkeypatch.setattr(prompts, "PROMPTS", tmp_path)
    prompts.template.cache_clear()
    with pytest.raises(DataError, match=f"{path}: .*{BROKEN[text]}"):
        _said(file)
    prompts.template.cache_clear()
