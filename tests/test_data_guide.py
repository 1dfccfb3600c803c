"""docs/data.md holds: its blocks run on small files, the other verbs and options that it names exist, its settings are accepted."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
import yaml

from config.settings import load_settings
from flows.sources.base import DATASETS, source_names
from tests.flows.demo_home import Said
from tests.own_data import quant_here, write_files

ROOT = Path(__file__).resolve().parents[1]
GUIDE = (ROOT / "docs" / "data.md").read_text(encoding="utf-8")
RUN = ("own data", "look", "quarantine", "alerts", "upkeep")


def commands(text: str) -> list[list[str]]:
    """The lines of a block, without their comments."""
    return [words for line in text.splitlines() if (words := shlex.split(line, comments=True))]


def block(label: str) -> list[list[str]]:
    """The commands of a labelled block."""
    found = re.search(rf"<!-- run: {label} -->\n```sh\n(.*?)\n```", GUIDE, re.S)
    assert found, label
    return commands(found.group(1))


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, ...], Said]:
    """The labelled blocks, run from top to bottom in a folder with the files they speak of."""
    folder = tmp_path_factory.mktemp("guide")
    write_files(folder)
    return {tuple(words): quant_here(folder, *words[1:]) for label in RUN for words in block(label)}


def test_its_commands_run(ran: dict[tuple[str, ...], Said]) -> None:
    assert len(ran) >= 18
    for words, said in ran.items():
        late = words[1:3] == ("data", "watch")  # bars of 2024 are late by now
        assert said.code == (3 if late else 0), (words, said.err)
        assert said.out, words


def test_what_it_says_of_them_is_so(ran: dict[tuple[str, ...], Said]) -> None:
    def said(*start: str) -> str:
        (found,) = [one.out for words, one in ran.items() if words[1 : 1 + len(start)] == start]
        return found

    members = said("universe", "show")
    assert "ACME" in members
    assert "GONE" in members  # it left on the 4th; on the 3rd it was a member
    released = [one.out for words, one in ran.items() if words[1:3] == ("data", "release")]
    assert "nothing was done" in released[0]
    assert "1 rows released" in released[1]
    assert "ACME\t3\t2024-01-05" in said("data", "sql")  # before the release: three of four bars


def test_every_command_it_names_has_the_verbs_and_options_it_gives_them() -> None:
    import typer.main

    from flows.cli.app import app

    lines = [words for found in re.findall(r"```sh\n(.*?)\n```", GUIDE, re.S) for words in commands(found)]
    assert len(lines) > 25
    for words in lines:
        command = typer.main.get_command(app)
        rest = words[1:]
        while hasattr(command, "commands"):
            assert rest[0] in command.commands, words
            command, rest = command.commands[rest[0]], rest[1:]
        command.make_context(words[0], rest)  # an unknown option, or a lacking argument, is an error


def test_its_settings_are_accepted_and_its_sources_are_those_there_are() -> None:
    found = re.search(r"<!-- settings: example -->\n```yaml\n(.*?)\n```", GUIDE, re.S)
    assert found
    settings = yaml.safe_load(found.group(1))
    load_settings(settings, environ={})
    for dataset in DATASETS:
        comment = re.search(rf"^  {dataset}: \[[^\]]*\] +# (.*)$", found.group(1), re.M)
        if comment:
            assert set(comment.group(1).split()) == set(source_names(dataset)), dataset
        for source in settings["data"].get(dataset, ()):
            assert source in source_names(dataset)
